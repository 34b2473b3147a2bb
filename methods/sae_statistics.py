"""Mean and scale of features by noise level: least squares over linear interpolation between knots."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..models.adp import at_level, interpolation
from ..models.sae import SparseAutoencoder

Sum = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes of a run."""

TIE = 1e-6
"""Weight of the differences between neighbouring knots, which settles those that no row is near: they take what lies around them."""


@torch.no_grad()
def fit_normalisation(sae: SparseAutoencoder, rows: Callable[[], Iterable[tuple[Tensor, Tensor]]], total: Sum = lambda x: x) -> None:
    """Set ``mean`` and ``scale`` from features [rows, C, H, W] and log-SNR [rows]; ``rows`` is called twice.

    Levels need not be those of the knots: the interpolated mean is the best one in the sense of least squares.
    """
    knots = sae.knots
    gram, means = knots.new_zeros(len(knots), len(knots)).double(), knots.new_zeros(len(knots), sae.channels).double()
    for features, level in rows():
        a = _hats(knots, level)
        gram += a.T @ a
        means += a.T @ features.float().mean(dim=(2, 3)).double()
    gram = total(gram)
    if not bool(gram.sum() > 0):
        raise ValueError("there are no rows to take a mean of: record images first.")
    system = gram + TIE * gram.trace() * _differences(len(knots))
    sae.mean.copy_(torch.linalg.solve(system, total(means)))
    squares = knots.new_zeros(len(knots)).double()
    for features, level in rows():
        centred = features.float() - at_level(sae.mean, knots, level)[:, :, None, None]
        squares += _hats(knots, level).T @ centred.pow(2).mean(dim=(1, 2, 3)).double()
    variance = torch.linalg.solve(system, total(squares))
    sae.scale.copy_(variance.clamp(min=1e-4 * float(variance.max().clamp(min=1e-12))).sqrt())


def _hats(knots: Tensor, level: Tensor) -> Tensor:
    """Weights of the knots in the interpolation at log-SNR [N]: float64 [N, T]."""
    low, weight = interpolation(knots, level.float())
    out = torch.zeros(len(level), len(knots), dtype=torch.float64)
    out.scatter_(1, low[:, None], 1 - weight[:, None].double())
    return out.scatter_add_(1, (low + 1).clamp(max=len(knots) - 1)[:, None], weight[:, None].double())


def _differences(count: int) -> Tensor:
    """d^T d of the differences between neighbours, float64 [T, T]."""
    d = torch.diff(torch.eye(count, dtype=torch.float64), dim=0)
    return d.T @ d


def geometric_median(x: Tensor, rounds: int = 20) -> Tensor:
    """Point with the least sum of distances to x [N, C], by Weiszfeld's rule: [C]."""
    centre = x.mean(0)
    for _ in range(rounds):
        weight = 1 / (x - centre).norm(dim=1).clamp(min=1e-6)
        centre = (x * weight[:, None]).sum(0) / weight.sum()
    return centre
