"""Fit mean and scale of features by noise level, so that interpolation between knots fits the recorded levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ...models.noise_level import at_level, interpolation
from ...models.sae import SparseAutoencoder

Sum = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes of a run."""

FINE = 64
"""Bins of noise levels between two knots, in which sums are kept."""
TIE = 1e-6
"""Weight of the differences between neighbouring knots, which settles those that no level is near: they take what lies around them."""
ROUNDS = 200


@torch.no_grad()
def fit_normalisation(sae: SparseAutoencoder, rows: Iterable[tuple[Tensor, Tensor]], total: Sum = lambda x: x) -> None:
    """Set ``mean`` and ``scale`` from features, in one pass.

    features [rows, C, H, W] and log-SNR [rows]. Raises ValueError if there are none.

    The mean is the interpolation with the least squared error. The scale is fitted by multiplicative steps, so that it stays above 0
    even if it changes steeply between recorded levels. Sums are kept in float64, on the CPU.
    """
    knots = sae.knots
    bins = (len(knots) - 1) * FINE + 1
    count, levels, squares = (torch.zeros(bins, dtype=torch.float64) for _ in range(3))
    sums = torch.zeros(bins, sae.channels, dtype=torch.float64)
    for features, level in rows:
        low, weight = interpolation(knots, level.float())
        bin_of = ((low + weight) * FINE).round().long()
        x = features.float()
        count += torch.bincount(bin_of, minlength=bins)
        levels.index_add_(0, bin_of, level.double())
        sums.index_add_(0, bin_of, x.mean(dim=(2, 3)).double())
        squares.index_add_(0, bin_of, x.pow(2).mean(dim=(1, 2, 3)).double())
    count, levels, sums, squares = (total(v) for v in (count, levels, sums, squares))
    seen = count > 0
    if not seen.any():
        raise ValueError("there are no rows to take a mean of: record images first.")
    n = count[seen]
    at = (levels[seen] / n).float()
    hats = _hats(knots, at)
    tie = TIE * _differences(len(knots))
    share = n[:, None] / n.sum()
    means, mean_squares = sums[seen] / n[:, None], squares[seen] / n
    sae.mean.copy_(torch.linalg.solve(hats.T @ (share * hats) + tie, hats.T @ (share * means)))
    centre = at_level(sae.mean, knots, at).double()
    variance = mean_squares - 2 * (means * centre).mean(1) + centre.pow(2).mean(1)
    deviation = variance.clamp(min=1e-6 * float(variance.max().clamp(min=1e-12))).sqrt()
    sae.scale.copy_(_positive(hats, n, deviation, tie))


def _positive(hats: Tensor, n: Tensor, wanted: Tensor, tie: Tensor) -> Tensor:
    """Fit positive values at the knots [T] by least squares.

    Their interpolations ``hats`` [N, T] are to be nearest to ``wanted`` [N]; n [N]: weights.
    """
    weights = hats * n[:, None]
    near = weights.sum(0)
    known = near > 1e-6 * n.sum()
    # Knots without a level nearby take what lies around them: the tie settles the logarithm.
    start = (weights.T @ wanted.log()) / near.clamp(min=1e-12)
    pull = torch.diag(known.double())
    logs = torch.linalg.solve(pull + tie, pull @ torch.where(known, start, 0.0))
    values = logs.exp()
    for _ in range(ROUNDS):
        ratio = wanted / (hats @ values)
        values = torch.where(known, values * (weights.T @ ratio) / near.clamp(min=1e-12), values)
    return values


def _hats(knots: Tensor, level: Tensor) -> Tensor:
    """Return the weights of the knots in the interpolation at log-SNR [N]: float64 [N, T]."""
    low, weight = interpolation(knots, level)
    out = torch.zeros(len(level), len(knots), dtype=torch.float64)
    out.scatter_(1, low[:, None], 1 - weight[:, None].double())
    return out.scatter_add_(1, (low + 1).clamp(max=len(knots) - 1)[:, None], weight[:, None].double())


def _differences(count: int) -> Tensor:
    """Return d^T d of the differences between neighbours, float64 [T, T]."""
    d = torch.diff(torch.eye(count, dtype=torch.float64), dim=0)
    return d.T @ d


def geometric_median(x: Tensor, rounds: int = 20) -> Tensor:
    """Find the point [C] with the least sum of distances.

    To x [N, C], by Weiszfeld's rule.
    """
    centre = x.mean(0)
    for _ in range(rounds):
        weight = 1 / (x - centre).norm(dim=1).clamp(min=1e-6)
        centre = (x * weight[:, None]).sum(0) / weight.sum()
    return centre
