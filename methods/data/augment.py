"""Augmentations of training images, with kornia: what a photograph or a diffusion model varies, and what is seen in the picture stays.

Colours are left alone unless asked for: skin tones and hair colours are read off them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NONE, GEOMETRY, QUALITY, COLOUR = AUGMENTATIONS = ("none", "geometry", "quality", "colour")
"""Each holds what the one before it does: mirrored, turned, moved and scaled a little; blurred and noisy; brighter, paler, tinted."""

Augment = Callable[[Tensor, int], Tensor]


def augmentation(name: str) -> Augment:
    """augment(images [B, 3, H, W] in 0..1, seed) -> the same shape, in 0..1; equal seeds give equal images on one device. The random
    numbers of others are left as they were.

    Raises ValueError for an unknown name, and where kornia (a requirement of ComfyUI) is not installed.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"there is no augmentation '{name}': choose one of {', '.join(AUGMENTATIONS)}.")
    if name == NONE:
        return lambda images, seed: images
    steps = _steps(AUGMENTATIONS.index(name))

    @torch.no_grad()
    def augment(images: Tensor, seed: int) -> Tensor:
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for step in steps:
                images = step(images)
        return images.clamp(0, 1)

    return augment


def _steps(level: int) -> list[torch.nn.Module]:
    try:
        import kornia.augmentation as made
    except ImportError as error:
        raise ValueError("augmentations need the package kornia, which ComfyUI installs: install it, or choose 'none'.") from error
    steps = [
        made.RandomHorizontalFlip(p=0.5),
        made.RandomAffine(degrees=6.0, translate=(0.05, 0.05), scale=(0.93, 1.07), padding_mode="border", p=0.8),
    ]
    if level >= 2:
        steps += [
            made.RandomGaussianBlur(kernel_size=(3, 3), sigma=(0.2, 1.0), p=0.3),
            made.RandomGaussianNoise(mean=0.0, std=0.03, p=0.5),
        ]
    if level >= 3:
        steps.append(made.ColorJiggle(brightness=0.15, contrast=0.15, saturation=0.15, hue=0.02, p=0.8))
    return steps
