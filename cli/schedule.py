"""Discrete noise schedule of guided-diffusion ("linear" betas) and a small DDIM loop, without a host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TRAIN_STEPS = 1000

Denoise = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]
"""unet(x, timesteps, transformer_options) -> velocity, sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans & Ho 2022)."""


def alphas_cumprod() -> Tensor:
    """Return the cumulative product of 1 - beta: float32 [1000].

    For guided-diffusion's "linear" schedule, beta 1e-4 to 2e-2, computed in float64.
    """
    betas = torch.linspace(1e-4, 2e-2, TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0).float()


def velocity(clean: Tensor, noise: Tensor, t: int) -> Tensor:
    """Compute the velocity: sqrt(abar_t) noise - sqrt(1 - abar_t) clean.

    The shipped networks are trained to predict it.
    """
    abar = alphas_cumprod()[t]
    return abar.sqrt() * noise - (1 - abar).sqrt() * clean


def sigmas() -> Tensor:
    """Return the sigma of every training timestep, ascending: float32 [1000].

    sqrt((1 - abar) / abar); the last is 157.407.
    """
    abar = alphas_cumprod()
    return torch.sqrt((1 - abar) / abar)


def ddim_timesteps(steps: int) -> list[int]:
    """Space ``steps`` timesteps evenly from 999 down to 0."""
    return [round(t) for t in torch.linspace(TRAIN_STEPS - 1, 0, steps).tolist()]


@torch.no_grad()
def ddim(
    unet: Denoise,
    noise: Tensor,
    steps: int = 20,
    patches: dict[str, Any] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample by deterministic DDIM (Song et al. 2021, eq. 12 with eta 0).

    noise [B, C, H, W] standard normal -> sample of the same shape. ``patches`` goes into transformer_options beside ``sigmas`` [B] and
    ``cond_or_uncond`` [0], as the host sends them.
    """
    abar = alphas_cumprod().to(noise.device)
    grid = ddim_timesteps(steps)
    level = sigmas().to(noise.device)
    x = noise
    for i, t in enumerate(grid):
        options = {
            "patches": dict(patches or {}),
            "sigmas": level[t].expand(x.shape[0]),
            "sample_sigmas": torch.cat([level[grid], level.new_zeros(1)]),
            "cond_or_uncond": [0],
        }
        v = unet(x, torch.full((x.shape[0],), float(t), device=x.device), options)
        signal, sigma = abar[t].sqrt(), (1 - abar[t]).sqrt()
        clean, eps = signal * x - sigma * v, sigma * x + signal * v
        following = abar[grid[i + 1]] if i + 1 < len(grid) else abar.new_ones(())
        x = following.sqrt() * clean + (1 - following).sqrt() * eps
        if on_step:
            on_step(i + 1, len(grid))
    return x
