"""Frechet distance between two sets of features, with its small-sample bias beside it. All in float64 on the CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
Moments = tuple[Array, Array]
"""Mean [D] and a factor F [min(N, D), D] of the covariance, covariance = F' F."""


@dataclass(frozen=True)
class FrechetReport:
    """A (squared, as usual) Frechet distance of feature vectors to a reference."""

    value: float
    """The distance."""
    floor: float | None
    """Mean distance between two disjoint random parts of the reference; None below four vectors."""
    floor_sizes: tuple[int, int] | None
    """Vectors in these two parts."""
    n: int
    """Number of vectors."""
    n_reference: int
    """Vectors of the reference."""
    dimensions: int
    """Dimensions of a vector."""
    low: float | None = None
    """Lower 95% bootstrap bound; None unless asked for."""
    high: float | None = None
    """Upper bound."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def frechet_distance(features: ArrayLike | Tensor, reference: ArrayLike | Tensor, weights: ArrayLike | Tensor | None = None) -> float:
    """Compute the Frechet distance of Gaussians fitted to two sets.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, with C of divisor n - 1).

    features [N, D], reference [M, D], both of the same D; no other set sizes or ridge needed, also where N or M is below D. weights [M],
    not negative: weigh the reference, for instance to shift the share of one attribute in it.

    Raises ValueError for fewer than two vectors, different D, values that are not finite, or weights that do not fit.
    """
    x, y = _features(features, "features"), _features(reference, "reference")
    _same_width(x, y)
    return _between(_moments(x), _moments(y, weights))


def frechet(
    features: ArrayLike | Tensor,
    reference: ArrayLike | Tensor,
    weights: ArrayLike | Tensor | None = None,
    repeats: int = 10,
    bootstrap: int = 0,
    seed: int = 0,
) -> FrechetReport:
    """Compute :func:`frechet_distance` with an estimate of its small-sample bias.

    The distance of two samples of one distribution is not 0 but grows with D and shrinks with n; ``repeats`` random splits of the reference
    show by how much. Their parts are smaller than the sets themselves, so what they show is scaled by (1/n + 1/m) / (1/a + 1/b), the
    leading order of the bias. (Weights do not enter.) Compare values at the same n only.

    bootstrap: number of resamples of both sets for 95% bounds, 0 for none. Resampling adds a bias of its own, so its quantiles are moved to
    have the measured value as their mean, and cut at 0.
    """
    x, y = _features(features, "features"), _features(reference, "reference")
    _same_width(x, y)
    generator = np.random.default_rng(seed)
    value = _between(_moments(x), _moments(y, weights))
    floor, sizes = _floor(len(x), y, repeats, generator)
    low, high = _bounds(x, y, weights, value, bootstrap, generator)
    return FrechetReport(value, floor, sizes, len(x), len(y), x.shape[1], low, high)


def _features(values: ArrayLike | Tensor, name: str) -> Array:
    x = _numpy(values)
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"a Frechet distance needs {name} of shape [images, dimensions]; met shape {list(x.shape)}.")
    if len(x) < 2:
        raise ValueError(f"a Frechet distance needs at least two vectors on either side, for a covariance; met {len(x)} in {name}.")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} vectors in {name} are not finite: look at those images, they may be black or broken.")
    return x


def _numpy(values: ArrayLike | Tensor) -> Array:
    return np.asarray(values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values, dtype=np.float64)


def _same_width(x: Array, y: Array) -> None:
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"a Frechet distance needs features of one network: met {x.shape[1]} dimensions and {y.shape[1]} in the reference."
        )


def _moments(x: Array, weights: ArrayLike | Tensor | None = None) -> Moments:
    """Return the mean, and a factor of the covariance.

    The centred vectors themselves, or their triangular factor if that is smaller.
    """
    w = np.ones(len(x)) if weights is None else _numpy(weights).reshape(-1)
    if len(w) != len(x) or not np.isfinite(w).all() or (w < 0).any() or (w > 0).sum() < 2:
        raise ValueError(f"weights are one per reference vector ({len(x)}), finite, not negative, and at least two above 0; met {len(w)}.")
    w = w / w.sum()
    mean = w @ x
    centred = (x - mean) * np.sqrt(w / (1 - (w**2).sum()))[:, None]  # divisor n - 1 where weights are equal
    return mean, centred if len(centred) <= centred.shape[1] else np.linalg.qr(centred, mode="r")


def _between(a: Moments, b: Moments) -> float:
    # tr (C1 C2)^(1/2) is the sum of the singular values of F1 F2': no roots of rounding errors, and little work for few vectors.
    (m1, f1), (m2, f2) = a, b
    cross = np.linalg.svd(f1 @ f2.T, compute_uv=False).sum()
    return max(0.0, float(((m1 - m2) ** 2).sum() + (f1**2).sum() + (f2**2).sum() - 2 * cross))


def _floor(n: int, y: Array, repeats: int, generator: np.random.Generator) -> tuple[float, tuple[int, int]] | tuple[None, None]:
    size = min(n, len(y) // 2)
    if size < 2 or repeats < 1:
        return None, None
    values = []
    for _ in range(repeats):
        order = generator.permutation(len(y))
        values.append(_between(_moments(y[order[:size]]), _moments(y[order[size:]])))
    scale = (1 / n + 1 / len(y)) / (1 / size + 1 / (len(y) - size))
    return scale * float(np.mean(values)), (size, len(y) - size)


def _bounds(
    x: Array, y: Array, weights: ArrayLike | Tensor | None, value: float, draws: int, generator: np.random.Generator
) -> tuple[float, float] | tuple[None, None]:
    if draws < 1:
        return None, None
    w = None if weights is None else _numpy(weights).reshape(-1)
    values = []
    for _ in range(draws):
        i, j = generator.integers(0, len(x), len(x)), generator.integers(0, len(y), len(y))
        values.append(_between(_moments(x[i]), _moments(y[j], None if w is None else w[j])))
    low, high = np.quantile(values, (0.025, 0.975)) - np.mean(values) + value
    return float(max(0.0, low)), float(max(0.0, high))
