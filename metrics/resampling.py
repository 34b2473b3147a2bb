"""What the metrics that resample images have in common. All in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
Bounds = tuple[float, float] | tuple[None, None]
IMAGES, BATCHES, NOTHING = "images", "batches", "nothing"


def as_array(values: ArrayLike | Tensor) -> Array:
    """Convert values to float64 on the CPU."""
    return np.asarray(values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values, dtype=np.float64)


def as_features(values: ArrayLike | Tensor, name: str, fewest: int = 1) -> Array:
    """Convert feature vectors to float64 [N, D], and check them.

    Raises ValueError for another shape, fewer than ``least`` vectors, or values that are not finite.
    """
    x = as_array(values)
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"expected {name} of shape [images, dimensions]; met shape {list(x.shape)}.")
    if len(x) < fewest:
        needed = "one image is" if fewest == 1 else f"{fewest} images are"
        raise ValueError(f"at least {needed} needed; met {len(x)} in {name}.")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} vectors in {name} are not finite: look at those images, they may be black or broken.")
    return x


def unit_rows(x: Array, name: str) -> Array:
    """Scale rows [N, D] to length 1.

    Raises ValueError where one is zero, as it has no direction.
    """
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"{int((length == 0).sum())} of {len(x)} vectors in {name} are zero, and have no direction to compare.")
    return x / length


def multiplicities(n: int, batch: int, draws: int, seed: int | np.random.Generator) -> tuple[Array, str]:
    """Count how often each image is in each resampled set, [draws, n].

    Also says what was resampled.

    Batches of ``batch`` consecutive images are drawn with replacement (a short last one counts as one); images where that gives fewer than
    two batches. No draws for n = 1: there is nothing to vary. The same rule as :func:`.fairness.bootstrap_shares`.
    """
    if batch < 1 or draws < 0:
        raise ValueError(f"batch is at least 1 and the number of resamples at least 0; met batch={batch}, resamples={draws}.")
    generator = np.random.default_rng(seed)
    if n < 2 or draws < 1:
        return np.empty((0, n)), NOTHING
    by_image = batch == 1 or n <= batch
    units = n if by_image else -(-n // batch)
    counts = generator.multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)
    return (counts, IMAGES) if by_image else (np.repeat(counts, batch, axis=1)[:, :n], BATCHES)


def resampled_means(values: ArrayLike, counts: Array) -> Array:
    """Average the values of resampled sets.

    values [N] or [N, K], counts [draws, N] -> [draws] or [draws, K].
    """
    table = np.asarray(values, dtype=np.float64)
    total = counts.sum(1)
    return (counts @ table) / (total if table.ndim == 1 else total[:, None])


def percentiles(draws: Array) -> Bounds:
    """Return the 2.5% and 97.5% quantile of resampled values [draws].

    None and None without any.
    """
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def mean_interval(values: ArrayLike, batch: int = 1, draws: int = 2000, seed: int = 0) -> tuple[float, float | None, float | None]:
    """Average values [N] with 95% percentile bootstrap bounds.

    The bounds are None if there is a single value.
    """
    table = np.asarray(values, dtype=np.float64)
    low, high = percentiles(resampled_means(table, multiplicities(len(table), batch, draws, seed)[0]))
    return float(table.mean()), low, high


def floats_of(values: Sequence[float] | Array) -> tuple[float, ...]:
    """Convert values to plain floats."""
    return tuple(float(v) for v in values)
