"""What is sampled to find directions from words."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.sampling import SamplerSettings
from ..core.types import Clip, Latent, Model


@dataclass(frozen=True)
class PromptSampling:
    """A text model, and the latents to sample under the prompts of each class."""

    model: Model
    """MODEL of a text model."""
    clip: Clip
    """Its text encoder."""
    latent: Latent
    """LATENT of one batch."""
    sampler: SamplerSettings
    """Seed of the first batch, steps, cfg, sampler and scheduler."""
    images: int
    """Latents to sample, rounded up to equal parts of the classes."""
    negative: str = ""
    """Negative prompt of the sampled latents."""
