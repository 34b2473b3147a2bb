"""Integrals of a softmax along a straight line of logits, which is what integrated gradients come down to where all else is affine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NODES, PANEL = 16, 6.0
"""Gauss-Legendre nodes per panel, and by how much logits may part within one: the error is then below 1e-11."""
MOST_PANELS = 256
SMALL = 1e-4


def path_weights(start: Tensor, change: Tensor) -> Tensor:
    """Integrate the softmax's derivative along a straight path: float64 [N, K, K].

    c[n, k, j] = integral over a in 0..1 of p_k (delta_kj - p_j), with p = softmax(start + a change); on the CPU.

    start, change: logits [N, K]. With d the change of the logits, sum_j c_kj d_j = p_k(1) - p_k(0) (completeness). Two classes by the
    logistic function's own integral; more by Gauss-Legendre quadrature in panels.
    """
    s, d = start.detach().double().cpu(), change.detach().double().cpu()
    return _two(s, d) if s.shape[1] == 2 else _many(s, d)


def _two(s: Tensor, d: Tensor) -> Tensor:
    """Integrate for two classes, by the logistic function.

    Its derivative by the logits' difference is p_0 (1 - p_0), and the integral of that is known.
    """
    at, by = s[:, 0] - s[:, 1], d[:, 0] - d[:, 1]
    middle = (at + by / 2).sigmoid()
    integral = ((at + by).sigmoid() - at.sigmoid()) / torch.where(by.abs() < SMALL, torch.ones_like(by), by)
    c = torch.where(by.abs() < SMALL, middle * (1 - middle), integral)
    return torch.stack([torch.stack([c, -c], 1), torch.stack([-c, c], 1)], 1)


def _many(s: Tensor, d: Tensor) -> Tensor:
    spread = float((d.amax(1) - d.amin(1)).max()) if len(d) else 0.0
    panels = min(MOST_PANELS, 1 + int(spread / PANEL))
    x, w = np.polynomial.legendre.leggauss(NODES)
    out = torch.zeros(*s.shape, s.shape[1], dtype=torch.float64)
    for panel in range(panels):
        for node, weight in zip((panel + (x + 1) / 2) / panels, w / (2 * panels), strict=True):
            p = torch.softmax(s + node * d, 1)
            out += weight * (torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    return out
