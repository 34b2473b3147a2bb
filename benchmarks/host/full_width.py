"""Run full-width SD 1.5 and SDXL with random weights in ComfyUI, with and without patches.

``bench overhead`` measures the cost of each patch with them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...factory.host_process import boot_host
from ...host.core.types import Model
from ...methods.bias_features.run import SteerSettings
from ...methods.core.target_text import parse_target
from ...methods.guidance.run import GuidanceSettings
from ..core.children import current_peak_megabytes, reset_peak
from ..core.random_adp import random_adp
from ..core.random_checkpoints import random_conditioning, random_weights
from ..core.random_sae import random_bias, random_sae
from ..guidance.universal import apply_universal

PLAIN, GUIDANCE, STEERING, TWO_PASS, UNIVERSAL = "plain", "guidance", "steering", "two-pass", "universal"
VARIANTS = (GUIDANCE, STEERING, TWO_PASS, UNIVERSAL)
ATTRIBUTES = {"eyeglasses": ("yes", "no"), "hair": ("short", "long")}
TARGET = "eyeglasses: yes=0.5, no=0.5"
CHANNELS, LATENTS, ACTIVE, TURNED = 1280, 10_240, 32, 32
"""Channels of the middle block, and an autoencoder eight times as wide, like DiffLens's for SD 1.5, which also turns about 32 features."""
CFG = 5.0


FLOAT, HALF = "float32", "float16"
LATENT = (16, 16)
"""Height and width of the latent, batch 1. Real latents are larger.

With a small latent the U-Net is cheap, while patches cost about the same. The measured ratios are therefore rather too high than too low.
"""
NEEDS: dict[tuple[str, str], dict[str, float]] = {
    ("sd15", FLOAT): {PLAIN: 6.5e9},
    ("sdxl", FLOAT): {PLAIN: 14e9},
    ("sdxl", HALF): {PLAIN: 8.5e9, UNIVERSAL: 20e9},
}
"""(model, type of its weights) -> variant -> bytes of free memory that it needs. PLAIN stands for all variants that are not listed.

ComfyUI itself uses float32 for both models on a CPU. With float16 weights it casts every layer at every call, and a gradient through the
U-Net keeps those casts.
"""


def dtype_for(model: str, free: float) -> str:
    """Choose the type of weights that fits into memory, float32 if possible.

    If nothing fits, return the smallest type.
    """
    known = [dtype for name, dtype in NEEDS if name == model]
    return next((dtype for dtype in known if NEEDS[model, dtype][PLAIN] <= free), known[-1])


class FullWidth:
    """Hold one model in ComfyUI with its conditionings, and patch it in every variant.

    It runs on one thread. The weights are ordinary tensors.
    """

    def __init__(self, name: str, dtype: str = FLOAT) -> None:
        torch.set_num_threads(1)
        boot_host()
        torch.set_num_threads(1)
        import comfy.sd

        self.name, options = name, {"dtype": getattr(torch, dtype)}
        loaded = comfy.sd.load_state_dict_guess_config(random_weights(name), output_vae=False, output_clip=False, model_options=options)
        self.model = loaded[0]
        self.model.model.requires_grad_(False)
        self.positive, self.negative = random_conditioning(name, 1), random_conditioning(name, 2)
        gc.collect()

    def variant(self, what: str) -> Any:
        """Return the MODEL under one patch; PLAIN gives a clone without a patch."""
        from ...host.bias_features.apply import apply_steering
        from ...host.guidance.apply import apply_guidance

        if what == PLAIN:
            return self.model.clone()
        if what == UNIVERSAL:
            return apply_universal(self.model, _score, 1.0)
        adp = random_adp(ATTRIBUTES, CHANNELS, base_model=self.name, hidden=96, size=0.3)
        target = parse_target(TARGET, ATTRIBUTES)
        if what == GUIDANCE:
            return apply_guidance(self.model, adp, GuidanceSettings(target))
        sae = random_sae(CHANNELS, "middle", self.name, LATENTS, ACTIVE)
        bias = random_bias(sae, ATTRIBUTES, TURNED, size=8.0)
        return apply_steering(self.model, sae, bias, SteerSettings(target), adp, asyrp=what == TWO_PASS)

    def sample(self, model: Model, steps: int, seed: int = 0) -> Tensor:
        """Sample with the host's KSampler; returns latents [1, 4, h, w]."""
        from ...host.core.sampling import SamplerSettings, ksample

        latent = {"samples": torch.zeros(1, 4, *LATENT)}
        with torch.no_grad():
            return ksample(model, SamplerSettings(seed, steps, CFG, "euler", "normal"), self.positive, self.negative, latent)["samples"]


def _score(denoised: Tensor) -> Tensor:
    """Replace decoder and classifier, to measure only the U-Net's part of universal guidance."""
    return denoised.float().square().mean()


class Watch:
    """Time every call of the guider's ``predict_noise``: U-Net, patches, CFG and what follows CFG."""

    def __init__(self, model: Model) -> None:
        from comfy.patcher_extension import WrappersMP

        self.model, self.processor, self.clock = model.clone(), [], []
        self.model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "equipoise_watch", self._timed)

    def _timed(self, executor: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        processor, clock = time.process_time(), time.perf_counter()
        out = executor(*args, **kwargs)
        self.processor.append(time.process_time() - processor)
        self.clock.append(time.perf_counter() - clock)
        return out


def rounds(bed: FullWidth, variants: tuple[str, ...], pairs: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure seconds per step of PLAIN and ``variants``, one figure per round.

    Returns "processor" and "clock" -> variant -> figures. In each round every variant samples once. Plain sampling stands between the
    variants that are compared most closely, and every second round runs backwards, so that each variant runs as often before plain sampling
    as after it. The first round is a warm-up and does not count.
    """
    order = [variants[0], PLAIN, *variants[1:]]
    watched = {what: Watch(bed.variant(what)) for what in order}
    seconds = {kind: {what: [] for what in order} for kind in ("processor", "clock")}
    for number in range(-1, pairs):
        for what in order if number % 2 else reversed(order):
            watch = watched[what]
            watch.processor.clear()
            watch.clock.clear()
            bed.sample(watch.model, steps, seed=number + 1)
            if number >= 0:
                seconds["processor"][what].append(sum(watch.processor) / steps)
                seconds["clock"][what].append(sum(watch.clock) / steps)
        say(f"{bed.name}: round {number + 1} of {pairs}")
    return seconds


def peak(bed: FullWidth, what: str, steps: int) -> dict[str, Any]:
    """Measure peak resident memory while one variant samples, in 10^6 bytes.

    ``reset`` in the result says whether the peak leaves out loading the model.
    """
    model = bed.variant(what)
    gc.collect()
    reset = reset_peak()
    bed.sample(model, steps)
    return {"peak_mb": current_peak_megabytes(), "reset": reset}
