"""How alike images of the same seed are with and without an edit: CLIP-I, and the same with any other network's features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .resampling import as_features, mean_interval, unit_rows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairedReport:
    """Same-seed similarity of images before and after."""

    n: int
    """Number of pairs."""
    cosine: float
    """Mean cosine of the two images' features, in -1..1."""
    low: float | None
    """Lower 95% bootstrap bound; None for a single pair."""
    high: float | None
    """Upper bound."""
    mapped: float
    """Mean of (cosine + 1) / 2, in 0..1, as papers print it."""
    mapped_low: float | None
    """Lower bound of it."""
    mapped_high: float | None
    """Upper bound of it."""
    unrelated: float | None
    """Mean cosine of images of different seeds, one of each set; None for a single pair."""
    lowest: float
    """Lowest cosine of any pair."""
    batch: int
    """Images that were sampled together."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers."""
        return asdict(self)


def cosines(before: ArrayLike | Tensor, after: ArrayLike | Tensor) -> Array:
    """Compute the cosine of every pair [N].

    before [N, D], after [N, D]; the same index means the same seed.

    Raises ValueError where the numbers of images or dimensions differ, and for vectors that are zero or not finite.
    """
    x, y = as_features(before, "the images before"), as_features(after, "the images after")
    if x.shape != y.shape:
        raise ValueError(
            f"paired images need the same seeds in the same order: met {len(x)} images with {x.shape[1]} features before and {len(y)} with "
            f"{y.shape[1]} after."
        )
    return (unit_rows(x, "the images before") * unit_rows(y, "the images after")).sum(1).clip(-1, 1)


def paired_similarity(
    before: ArrayLike | Tensor, after: ArrayLike | Tensor, batch: int = 1, bootstrap: int = 2000, seed: int = 0
) -> PairedReport:
    """Measure the mean same-seed similarity with its uncertainty.

    With projected CLIP image embeddings this is CLIP-I.

    batch: images that were edited together; whole batches are resampled then. Errors as of :func:`cosines`.
    """
    values = cosines(before, after)
    mean, low, high = mean_interval(values, batch, bootstrap, seed)
    return PairedReport(
        n=len(values),
        cosine=mean,
        low=low,
        high=high,
        mapped=(mean + 1) / 2,
        mapped_low=None if low is None else (low + 1) / 2,
        mapped_high=None if high is None else (high + 1) / 2,
        unrelated=_unrelated(before, after, values),
        lowest=float(values.min()),
        batch=batch,
    )


def _unrelated(before: ArrayLike | Tensor, after: ArrayLike | Tensor, same: Array) -> float | None:
    """Average the cosine over all pairs of different seeds."""
    n = len(same)
    if n < 2:
        return None
    x, y = unit_rows(as_features(before, "before"), "before"), unit_rows(as_features(after, "after"), "after")
    return float((x.sum(0) @ y.sum(0) - same.sum()) / (n * (n - 1)))
