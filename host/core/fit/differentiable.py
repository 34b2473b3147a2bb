"""Make a host MODEL a differentiable function, from what is added to h to the prediction.

The host runs nodes in inference mode, and its weights are inference tensors, which no gradient can pass. Only the decoder half of the
U-Net comes after h, so only its weights are cloned, outside that mode and with LoRA and other patches counted in; the encoder half runs on
the host's own. The MODEL stays as it was. Everything else (input scaling, timesteps, epsilon, v or x0 prediction) is the host's
``apply_model``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor, nn

from ..types import Conditioning, Model, ModelInput, Options, Patcher

Value = TypeVar("Value")

DECODER = ("diffusion_model.output_blocks.", "diffusion_model.out.", "diffusion_model.id_predictor.")
HALF_SCALE = 1024.0
"""Scale of the loss if the model computes in fp16, because its gradients would fall below the smallest number."""
_NARROWS = ("area", "mask", "control", "gligen", "hooks", "timestep_start", "timestep_end", "start_percent", "end_percent")


class Differentiable:
    """A loaded MODEL as a differentiable function.

    ``alphas_cumprod`` float32 [T] on the CPU: the model's own noise levels, by t.
    """

    def __init__(self, patcher: Patcher, conditions: Sequence[Mapping[str, ModelInput]]) -> None:
        self.model, self.conditions = patcher.model, list(conditions)
        self.device: torch.device = patcher.load_device
        self._options = comfy.model_patcher.create_model_options_clone(patcher.model_options).get("transformer_options", {})
        sigmas = patcher.get_model_object("model_sampling").sigmas.detach().float().cpu()
        with torch.inference_mode(False):
            self.sigmas = sigmas.clone()
            self.alphas_cumprod = 1 / (1 + self.sigmas**2)
            self._call = _Call(self.model)
            tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
            self._weights = {f"network.{name}": value.detach().clone() for name, value in tensors if name.startswith(DECODER)}
            # Older hosts leave requires_grad on, which would carry a gradient through the encoder half too.
            others = [(name, value) for name, value in tensors if value.requires_grad and not name.startswith(DECODER)]
            self._weights |= {f"network.{name}": value.detach() for name, value in others}
        self.scale = HALF_SCALE if (self.model.manual_cast_dtype or self.model.get_dtype()) == torch.float16 else 1.0

    def velocity(self, x: Tensor, t: int, options: Options) -> Tensor:
        """Return what a perfect v-predicting network would give, whatever the model predicts.

        x [B, C, H, W] float32 is variance preserving, sqrt(a) x0 + sqrt(1 - a) noise, in the model's own latent scale; the result is
        sqrt(a) noise - sqrt(1 - a) x0. ``options["patches"]["output_block_patch"]`` run before the MODEL's own. ``options["y"]`` int64 [B]:
        index of each row's condition (absent: the first).
        """
        sigma = self.sigmas[t].to(self.device)
        rows = options["y"].tolist() if "y" in options else [0] * len(x)
        patches = self._options.get("patches", {})
        ours = options.get("patches", {}).get("output_block_patch", [])
        transformer_options = {
            **self._options,
            "patches": {**patches, "output_block_patch": [*ours, *patches.get("output_block_patch", [])]},
            "cond_or_uncond": [0],
            "sigmas": sigma.expand(len(x)),
            "sample_sigmas": sigma.expand(1),
            # On a CPU the host's default attention writes in place, which no gradient passes.
            "optimized_attention_override": _plain_attention,
        }
        root = (1 + sigma**2).sqrt()
        arguments = {**self._condition(rows), "transformer_options": transformer_options}
        clean = torch.func.functional_call(self._call, self._weights, (x * root, sigma.expand(len(x))), arguments)
        return (x / root - clean.float()) * (root / sigma)

    def _condition(self, rows: list[int]) -> dict[str, object]:
        """Return the keyword arguments of apply_model for rows with these conditions."""
        used = sorted(set(rows))
        if len(used) == 1:
            return {k: c.process_cond(batch_size=len(rows), area=None).cond for k, c in self.conditions[used[0]].items()}
        arguments = {}
        for key in self.conditions[used[0]]:
            each = {i: self.conditions[i][key].process_cond(batch_size=1, area=None) for i in used}
            arguments[key] = each[rows[0]].concat([each[i] for i in rows[1:]])
        return arguments


class _Call(nn.Module):
    """Gives functional_call a forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor, **arguments: object) -> Tensor:
        """Evaluate the denoiser on x at sigma."""
        return self.network.apply_model(x, sigma, **arguments)


def _plain_attention(_: object, *args: object, **kwargs: object) -> Tensor:
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


def load_whole(patchers: Sequence[Patcher], memory: float) -> None:
    """Load all patchers at once, with their patches.

    Raises ValueError if the host keeps a part outside the device's memory.
    """
    comfy.model_management.load_models_gpu(list(patchers), memory_required=memory, force_full_load=True)
    if any(getattr(p.model, "model_lowvram", False) for p in patchers):
        raise ValueError(
            "ComfyUI loaded only a part of this model, and learning needs all of its weights in the memory of the device: start ComfyUI "
            "without --novram, or use a smaller model."
        )


def check_sampling(model: Model) -> None:
    """Raise ValueError for models whose noise is not added to the image (rectified flow)."""
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.EPS) or not hasattr(sampling, "sigmas"):
        raise ValueError(
            f"directions can be learned for models that predict noise, velocity or the image, and this model uses "
            f"{type(sampling).__mro__[-2].__name__}: use Calibrate ADP, which can compute directions from features."
        )


def model_conditions(model: Model, conditionings: Sequence[Conditioning], shape: Sequence[int]) -> list[dict[str, ModelInput]]:
    """Convert CONDITIONINGs to the MODEL's inputs, without inference tensors.

    ``shape``: of a latent, (C, H, W). Returns a dict of the host's COND objects for each. Raises ValueError for a CONDITIONING that is not
    a single prompt for the whole image and all steps.
    """
    check_sampling(model)
    device = model.load_device
    noise = torch.zeros((1, *shape), device=device)
    inputs = []
    for conditioning in conditionings:
        converted = comfy.sampler_helpers.convert_cond(conditioning)
        if len(converted) != 1 or any(converted[0].get(key) is not None for key in _NARROWS):
            raise ValueError(
                "directions are learned with one prompt for the whole image and all steps, and this conditioning is combined, limited to "
                "an area, a mask or some steps, or has a ControlNet: connect CLIP Text Encode or Class Label directly."
            )
        encoded = comfy.samplers.encode_model_conds(model.model.extra_conds, converted, noise, device, "positive", latent_image=noise)
        with torch.inference_mode(False):
            inputs.append({key: _normal_cond(cond) for key, cond in encoded[0]["model_conds"].items()})
    return inputs


def _normal_cond(cond: ModelInput) -> ModelInput:
    return type(cond)(_normal(cond.cond))


def _normal(value: Value) -> Value:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return type(value)(_normal(v) for v in value) if isinstance(value, (list, tuple)) else value
