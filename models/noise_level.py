"""Noise levels as log-SNR, and values interpolated between them."""

from __future__ import annotations

import torch
from torch import Tensor


def log_snr(sigma: Tensor | float) -> Tensor:
    """Convert sigma to log-SNR: -2 ln(sigma), for a signal of unit scale.

    Kingma et al. 2021. float32, in the shape of ``sigma``.
    """
    return -2.0 * torch.log(torch.as_tensor(sigma, dtype=torch.float32).clamp(min=1e-8))


def interpolation(knots: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Find the neighbours and weights for linear interpolation between knots.

    Ascending knots [T], values [B], clamped at both ends: lower index int64 [B] and upper weight [B].
    """
    if len(knots) == 1:
        return torch.zeros_like(at, dtype=torch.long), torch.zeros_like(at)
    low = (torch.searchsorted(knots, at.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)
    weight = (at - knots[low]) / (knots[low + 1] - knots[low])
    return low, weight.clamp(0, 1)


def check_knots(knots: Tensor) -> None:
    """Raise ValueError unless these are log-SNR that ascend, between which can be interpolated."""
    if knots.ndim != 1 or not len(knots) or not bool(knots.isfinite().all()) or not bool((knots[1:] > knots[:-1]).all()):
        raise ValueError("its noise levels are not finite numbers in ascending order")


def at_level(table: Tensor, knots: Tensor, at: Tensor) -> Tensor:
    """Interpolate a table [T, ...] over knots [T] at log-SNR [B]: [B, ...]."""
    low, weight = interpolation(knots, at)
    high = (low + 1).clamp(max=len(knots) - 1)
    return torch.lerp(table[low], table[high], weight.view(-1, *[1] * (table.ndim - 1)).to(table.dtype))


def default_knots(low: float = -10.0, high: float = 9.0, count: int = 20) -> Tensor:
    """Return evenly spaced log-SNR levels over what samplers visit (sigma 150 to 0.01)."""
    return torch.linspace(low, high, count)
