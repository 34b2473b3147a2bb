"""Sampling with ComfyUI's own KSampler, and by its functions for nodes that sample batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.sample
import comfy.utils
from torch import Tensor

from .types import Conditioning, Latent, Model

StepCallback = Callable[[int, Tensor, Tensor, int], None]
"""callback(step, x0, x, steps) after every sampling step."""


@dataclass(frozen=True)
class SamplerSettings:
    """Hold the inputs of ComfyUI's KSampler."""

    seed: int
    """Seed of the noise."""
    steps: int
    """Number of sampling steps."""
    cfg: float
    """Scale of classifier-free guidance."""
    sampler_name: str
    """Name of the sampler."""
    scheduler: str
    """Name of the scheduler."""
    denoise: float = 1.0
    """Share of the schedule that is sampled, from 0 to 1."""


def ksample(model: Model, s: SamplerSettings, positive: Conditioning, negative: Conditioning, latent: Latent) -> Latent:
    """Sample a LATENT as ComfyUI's KSampler node does."""
    import nodes as host_nodes  # the host's module of that name, which exists only inside a running host

    sampler = (s.seed, s.steps, s.cfg, s.sampler_name, s.scheduler)
    return host_nodes.common_ksampler(model, *sampler, positive, negative, latent, denoise=s.denoise)[0]


def draw(
    model: Model,
    s: SamplerSettings,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    callback: StepCallback,
    image_index: Sequence[int] | None = None,
) -> Tensor:
    """Sample a LATENT and return its samples [N, C, H, W].

    ``callback`` takes the place of the host's progress.
    The samples of ``latent`` must fit the model (:func:`.versions.fitting_latent`). ``image_index``: sample only these images, with the
    noise that they have in the whole batch.
    """
    start, mask = latent["samples"], latent.get("noise_mask")
    noise = comfy.sample.prepare_noise(start, s.seed, latent.get("batch_index"))
    if image_index is not None:
        chosen = list(image_index)
        mask = mask[chosen] if mask is not None and len(mask) == len(start) else mask
        noise, start = noise[chosen], start[chosen]
    return comfy.sample.sample(
        model,
        noise,
        s.steps,
        s.cfg,
        s.sampler_name,
        s.scheduler,
        positive,
        negative,
        start,
        denoise=s.denoise,
        noise_mask=mask,
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=s.seed,
    )
