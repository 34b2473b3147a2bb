"""Augment training images: vary what a photograph or a diffusion model varies, and keep what is seen in the picture.

Colours stay unless the user asks for it, because skin tones and hair colours are read from them. Augmentations by name use kornia.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

NONE, GEOMETRY, QUALITY, COLOUR = AUGMENTATIONS = ("none", "geometry", "quality", "colour")
"""Each includes the one before: mirrored, turned, moved and scaled a little; blurred and noisy; brighter, paler, tinted."""

Augment = Callable[[Tensor, int], Tensor]


def augmentation(name: str) -> Augment:
    """Return augment(images [B, 3, H, W] in 0..1, seed) -> the same shape, in 0..1.

    Equal seeds give equal images on one device; the global random numbers stay as they were. Raises ValueError for an unknown name, and if
    kornia (a requirement of ComfyUI) is not installed.
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


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade images [B, 3, H, W] in 0..1 as the small diffusion models do.

    Half of the rows are blurred; a grain repeats every 2x2 pixels (the packing of the latents); noise has any strength up to 0.1.
    """
    b, _, height, width = images.shape

    def share() -> Tensor:
        return torch.rand(b, 1, 1, 1, generator=generator)

    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    out = images + share() * (share() < 0.5) * 0.8 * (blurred - images)
    grain = torch.randn(b, 3, 2, 2, generator=generator).repeat(1, 1, height // 2, width // 2)
    out = out + grain * share() * (share() < 0.7) * 0.06
    out = out + torch.randn(images.shape, generator=generator) * share() ** 2 * 0.1
    return out.clamp(0, 1)


def _steps(level: int) -> list[torch.nn.Module]:
    try:
        import kornia.augmentation as augmentations
    except ImportError as error:
        raise ValueError("augmentations need the package kornia, which ComfyUI installs: install kornia, or choose 'none'.") from error
    steps = [
        augmentations.RandomHorizontalFlip(p=0.5),
        augmentations.RandomAffine(degrees=6.0, translate=(0.05, 0.05), scale=(0.93, 1.07), padding_mode="border", p=0.8),
    ]
    if level >= 2:
        steps += [
            augmentations.RandomGaussianBlur(kernel_size=(3, 3), sigma=(0.2, 1.0), p=0.3),
            augmentations.RandomGaussianNoise(mean=0.0, std=0.03, p=0.5),
        ]
    if level >= 3:
        steps.append(augmentations.ColorJiggle(brightness=0.15, contrast=0.15, saturation=0.15, hue=0.02, p=0.8))
    return steps
