"""Latents of the shipped models: pixels packed 2x2 into channels."""

from __future__ import annotations

import torch
from torch import Tensor


def space_to_depth(images: Tensor) -> Tensor:
    """Pack images [B, 3, H, W] into latents [B, 12, H/2, W/2].

    Images in 0..1, latents in -1..1; channel = colour * 4 + row * 2 + column.
    """
    return torch.nn.functional.pixel_unshuffle(images * 2 - 1, 2)


def depth_to_space(latent: Tensor) -> Tensor:
    """Unpack latents into images, the inverse of :func:`space_to_depth`, clamped to 0..1."""
    return (torch.nn.functional.pixel_shuffle(latent, 2) / 2 + 0.5).clamp(0, 1)
