"""What an edit left alone: paired readings and pictures of images with and without it. All in float64 on the CPU.

Both sets have the same noise, image by image. A perfect edit changes the class that was asked for, in the images that lacked it, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .drift import attribute_drift
from .fairness import UNSURE_BELOW
from .resampling import as_array, mean_interval

Array = NDArray[np.float64]
Probabilities = Mapping[str, ArrayLike | Tensor]
"""Attribute -> class probabilities [N, K] of every image."""


@dataclass(frozen=True)
class Share:
    """A share of images with its 95% interval."""

    value: float | None
    """The share; None without images."""
    low: float | None
    """Lower bound; None for fewer than two images."""
    high: float | None
    """Upper bound."""
    n: int
    """Number of images that it is a share of."""


@dataclass(frozen=True)
class Preservation:
    """Report what stayed of every attribute that was not asked for."""

    n: int
    """Number of pairs."""
    changed: int
    """Number of pairs whose asked class changed."""
    kept_changed: dict[str, Share]
    """Attribute -> share of these whose reading of it stayed."""
    kept_unchanged: dict[str, Share]
    """The same among the other pairs."""
    drift: dict[str, float]
    """Attribute -> largest change of a class's share, in percentage points."""
    association: dict[str, float]
    """Attribute -> change of Cramer's V between it and the asked attributes."""
    unsure: float
    """Change of the share of images whose asked class is doubtful, in percentage points."""

    @property
    def lowest_kept(self) -> tuple[float, float]:
        """Return the lowest share among changed and among other pairs; 1 where there are none."""
        return _lowest(self.kept_changed), _lowest(self.kept_unchanged)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers."""
        return asdict(self)


def preservation(before: Probabilities, after: Probabilities, asked: Sequence[str], batch: int = 1, draws: int = 2000) -> Preservation:
    """Measure what stayed from ``before`` to ``after``, by the class that is most probable in each image.

    asked: the attributes that were to change. batch: images that were edited together; whole batches are resampled for intervals.
    Raises ValueError where the sets differ, or lack an asked attribute.
    """
    first, second = ({a: as_array(p) for a, p in read.items()} for read in (before, after))
    sizes = {len(p) for read in (first, second) for p in read.values()}
    if len(sizes) != 1 or first.keys() != second.keys() or not set(asked) <= first.keys() or not asked:
        raise ValueError(
            f"pairs need the same images and attributes before and after, and asked ones among them: met {sorted(first)} and "
            f"{sorted(second)}, {sorted(sizes)} images, asked {list(asked)}."
        )
    classes = [{a: p.argmax(1) for a, p in read.items()} for read in (first, second)]
    changed = np.any([classes[0][a] != classes[1][a] for a in asked], axis=0)
    others = [a for a in first if a not in asked]
    stays = {a: classes[0][a] == classes[1][a] for a in others}
    cells = [_cells(c, asked) for c in classes]
    return Preservation(
        n=len(changed),
        changed=int(changed.sum()),
        kept_changed={a: _share(stays[a], changed, batch, draws) for a in others},
        kept_unchanged={a: _share(stays[a], ~changed, batch, draws) for a in others},
        drift={a: 100 * attribute_drift(first[a], second[a], a, _names(first[a]), bootstrap=0).drift for a in others},
        association={a: cramers_v(cells[1], classes[1][a]) - cramers_v(cells[0], classes[0][a]) for a in others},
        unsure=100 * float(np.mean([_unsure(second[a]) - _unsure(first[a]) for a in asked])),
    )


def cramers_v(one: ArrayLike, other: ArrayLike) -> float:
    """Compute Cramer's V between two labellings [N]: 0 for independent ones, 1 where one decides the other.

    Cramer (1946). It is 0 where a labelling has a single class.
    """
    a, b = (np.unique(np.asarray(x), return_inverse=True)[1] for x in (one, other))
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    least = min(table.shape) - 1
    if least < 1:
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(np.sqrt(((table - expected) ** 2 / expected).sum() / table.sum() / least))


def variance_ratio(before: ArrayLike | Tensor, after: ArrayLike | Tensor) -> float:
    """Compare how much images of one class vary after an edit and in plain sampling.

    Features or pixels [N, D] and [M, D]: total variance of ``after`` by that of ``before``; below 1 the edited images are more alike.
    Raises ValueError for fewer than two images.
    """
    x, y = as_array(before), as_array(after)
    if min(len(x), len(y)) < 2 or x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"variances need two or more vectors of one length on both sides; met {list(x.shape)} and {list(y.shape)}.")
    return float(y.var(0, ddof=1).sum() / max(x.var(0, ddof=1).sum(), 1e-12))


def _lowest(kept: Mapping[str, Share]) -> float:
    return min((share.value for share in kept.values() if share.value is not None), default=1.0)


def _cells(classes: Mapping[str, NDArray[np.int64]], asked: Sequence[str]) -> NDArray[np.int64]:
    """Number the combinations of the asked attributes' classes."""
    return np.unique(np.stack([classes[a] for a in asked], 1), axis=0, return_inverse=True)[1].reshape(-1)


def _share(stays: NDArray[np.bool_], of: NDArray[np.bool_], batch: int, draws: int) -> Share:
    n = int(of.sum())
    if n == 0:
        return Share(None, None, None, 0)
    mean, low, high = mean_interval(stays[of].astype(np.float64), batch if n == len(of) else 1, draws)
    return Share(mean, low, high, n)


def _unsure(p: Array) -> float:
    return float((p.max(1) < UNSURE_BELOW).mean())


def _names(p: Array) -> list[str]:
    return [str(k) for k in range(p.shape[1])]
