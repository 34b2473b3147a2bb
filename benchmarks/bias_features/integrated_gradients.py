"""Integrated gradients by the plain rule, through decoder and predictor at every point: the reference for the product's own forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...methods.bias_features.integrated_gradients import class_gradients
from ...methods.bias_features.linear_readout import check_reader
from ...models.adp import AttributePredictor
from ...models.sae import SparseAutoencoder
from ...models.sites import GRID

GAUSS, MIDPOINT, LEFT = RULES = ("gauss", "midpoint", "left")
"""Where the points of the path are: Gauss-Legendre, the middle of equal parts, or their left ends (the paper's)."""


def integrated_gradients(
    sae: SparseAutoencoder,
    predictor: AttributePredictor,
    attribute: str,
    z: Tensor,
    level: Tensor,
    baseline: Tensor | None = None,
    points: int = 32,
    rule: str = GAUSS,
) -> Tensor:
    """Attribute every class's probability to every feature and cell: float32 [N, K, m, 4, 4].

    z: activations averaged to the grid, [N, m, 4, 4]; baseline: of the same shape, None for zeros; level: log-SNR [N]. Raises ValueError
    for an unknown attribute or rule, a predictor of another width, or activations of another shape.
    """
    check_reader(sae, predictor, attribute)
    start = torch.zeros_like(z) if baseline is None else baseline
    shape = (*z.shape[:2], GRID, GRID)
    if not tuple(z.shape) == tuple(start.shape) == shape or len(level) != len(z):
        raise ValueError(
            f"activations and baseline are averages on the grid, [N, m, 4, 4], with N noise levels; met {list(z.shape)}, "
            f"{list(start.shape)} and {len(level)}."
        )
    dz, total = z - start, None
    with torch.enable_grad():
        for point, weight in zip(*path_points(points, rule), strict=True):
            at = (start + point * dz).detach().requires_grad_(True)
            grad = class_gradients(predictor(sae.decode(at, level), level)[attribute].softmax(-1), at)
            total = weight * grad if total is None else total.add_(grad, alpha=weight)
    return total * dz[:, None]


def path_points(points: int, rule: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return points in 0..1 and their weights.

    Raises ValueError for an unknown rule or no points.
    """
    if rule not in RULES or points < 1:
        raise ValueError(f"a path is integrated at 1 point or more, by the rule {', '.join(RULES)}; met {points} and '{rule}'.")
    if rule == GAUSS:
        x, w = np.polynomial.legendre.leggauss(points)
        return ((x + 1) / 2).tolist(), (w / 2).tolist()
    shift = 0.5 if rule == MIDPOINT else 0.0
    return [(i + shift) / points for i in range(points)], [1 / points] * points
