"""KSampler's own inputs, for the nodes that sample."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io


def sampler_inputs(steps: int = 20, cfg: float = 8.0) -> list[Any]:
    """steps, cfg, sampler_name and scheduler, with KSampler's ranges and these defaults."""
    return [
        io.Int.Input("steps", default=steps, min=1, max=10000, tooltip="Number of sampling steps. Each step is one noise level."),
        io.Float.Input("cfg", default=cfg, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Classifier-free guidance scale. 1 is off."),
        io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip="ComfyUI's sampler, such as euler."),
        io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="ComfyUI's schedule of noise levels."),
    ]


def denoise_input() -> Any:
    """KSampler's denoise."""
    return io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Share of the noise to start from. 1 is all of it.")
