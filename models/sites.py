"""Sites of h: their names, and h pooled to the grid on which it is read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 4
"""Height and width of pooled h."""
MIDDLE = "middle"
"""The output of the middle block."""


def block_site(block: tuple[str, int]) -> str:
    """Name the site of what arrives at an output block.

    "middle" at ("output", 0), "output.N" at ("output", N + 1).
    """
    return MIDDLE if block[1] == 0 else f"output.{block[1] - 1}"


def pool(h: Tensor) -> Tensor:
    """Average h to the grid: [B, C, H, W] -> float32 [B, C, 4, 4].

    Adaptive averaging, for any size.
    """
    h = h.float()
    return h if tuple(h.shape[-2:]) == (GRID, GRID) else average(h, GRID, GRID)


def average(x: Tensor, height: int, width: int) -> Tensor:
    """Average maps adaptively: float32 [B, C, H, W] -> [B, C, height, width].

    Where sizes do not divide, by matrices: not every device's own kernel knows that case (Apple's MPS refuses it).
    """
    if x.shape[-2] % height == 0 and x.shape[-1] % width == 0:
        return F.adaptive_avg_pool2d(x, (height, width))
    return _averaging(x.shape[-2], height, x) @ x @ _averaging(x.shape[-1], width, x).T


def _averaging(size: int, parts: int, like: Tensor) -> Tensor:
    """Make the matrix [parts, size] that averages overlapping parts of a line."""
    index, part = torch.arange(size), torch.arange(parts)[:, None]
    inside = (index >= part * size // parts) & (index < -(-(part + 1) * size // parts))
    return (inside / inside.sum(1, keepdim=True)).to(like)
