"""Patch a MODEL with universal guidance (Bansal et al. 2023), a baseline.

It takes a gradient through the whole U-Net: forward guidance with a classifier of clean images, without backward guidance and
self-recurrence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...host.core.types import Model

Score = Callable[[Tensor], Tensor]
"""Denoised latents [R, C, H, W] of the positive's rows, in the order of images -> sum of log-probabilities (a scalar)."""


def guided_denoised(call: Callable[[Tensor], Tensor], x: Tensor, sigma: Tensor, chosen: Tensor, score: Score, strength: float) -> Tensor:
    """Move the denoised latents of the ``chosen`` rows (bool [R]) up a score.

    D + s sigma^2 d score(D(x)) / dx: the paper's rule eps + s sqrt(1 - a) d loss / d x_t, a being alpha-bar of x_t, for the host's
    x = x_0 + sigma eps, in which D = x - sigma eps. ``call``: x [R, C, H, W] -> D of the same shape; sigma [R].
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        denoised = call(x)
        (gradient,) = torch.autograd.grad(score(denoised[chosen]), x)
    out = denoised.detach().clone()
    square = sigma.float().pow(2)[:, None, None, None]
    out[chosen] = (out[chosen].float() + strength * (square * gradient.float())[chosen]).to(out.dtype)
    return out


def apply_universal(model: Model, score: Score, strength: float) -> Any:
    """Clone a MODEL and guide its conditional rows; the original does not change.

    Weights must be ordinary tensors (loaded outside inference mode).
    """

    def wrapper(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        x, sigma, marks = args["input"], args["timestep"], args["cond_or_uncond"]
        each = len(x) // len(marks)
        chosen = torch.tensor([mark == 0 for mark in marks], device=x.device).repeat_interleave(each)
        if not chosen.any():
            return apply_model(x, sigma, **args["c"])
        # On a CPU the host's default attention writes in place, which no gradient passes.
        options = {**args["c"].get("transformer_options", {}), "optimized_attention_override": _plain_attention}
        arguments = {**args["c"], "transformer_options": options}
        return guided_denoised(lambda x: apply_model(x, sigma, **arguments), x, sigma, chosen, score, strength)

    clone = model.clone()
    clone.set_model_unet_function_wrapper(wrapper)
    return clone


def _plain_attention(_: Any, *args: Any, **kwargs: Any) -> Tensor:
    import comfy.ldm.modules.attention  # the host's, which exists only where a host runs

    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)
