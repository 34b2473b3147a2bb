"""What is sampled to find directions from words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.sampling import SamplerSettings


@dataclass(frozen=True)
class PromptSampling:
    """A text model, and the latents to sample under the prompts of each class."""

    model: Any
    """MODEL of a text model."""
    clip: Any
    """Its text encoder."""
    latent: dict[str, Any]
    """LATENT of one batch."""
    sampler: SamplerSettings
    """Seed of the first batch, steps, cfg, sampler and scheduler."""
    images: int
    """Latents to sample, rounded up to equal parts of the classes."""
    negative: str = ""
    """Negative prompt of the sampled latents."""
