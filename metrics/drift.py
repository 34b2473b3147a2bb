"""What else changed: shares of attributes that no one asked to change, and how many images changed their class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .fairness import UNSURE_BELOW, _one_hot, _probabilities
from .resampling import floats_of, multiplicities, resampled_means

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DriftReport:
    """Change of one attribute's hard shares from images before to images after."""

    attribute: str
    """Name of the attribute."""
    classes: tuple[str, ...]
    """Class names."""
    n_before: int
    """Images before."""
    n_after: int
    """Images after."""
    paired: bool
    """Whether images at the same place have the same seed."""
    before: tuple[float, ...]
    """Shares before."""
    after: tuple[float, ...]
    """Shares after."""
    change: tuple[float, ...]
    """Share after minus share before, per class."""
    change_low: tuple[float, ...] | None
    """Lower 95% bootstrap bounds; None for a single image."""
    change_high: tuple[float, ...] | None
    """Upper bounds."""
    drift: float
    """Largest change of a class, without its sign."""
    total_variation: float
    """Half the sum of the changes' sizes."""
    floor: float
    """Mean of ``drift`` where before and after are exchanged at random."""
    p_value: float
    """Share of these draws that are at least as large."""
    moved: float | None
    """Share of pairs whose class changed; None where images are not paired."""
    unsure_before: float
    """Share of images before whose highest probability is below 0.8."""
    unsure_after: float
    """The same after."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def drift(
    before: Mapping[str, ArrayLike | Tensor],
    after: Mapping[str, ArrayLike | Tensor],
    classes: Mapping[str, Sequence[str]],
    targeted: Sequence[str] = (),
    paired: bool = True,
    batch: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> list[DriftReport]:
    """Measure the drift of every attribute that was not targeted.

    Reports are in the order of ``classes``.

    before, after: attribute -> probabilities [N, K]. paired: same place means same seed; seeds are then resampled together, which removes
    what differs between seeds anyway. batch: images made together; whole batches are resampled.

    Raises ValueError where paired sets differ in number, or probabilities do not fit.
    """
    return [
        attribute_drift(before[a], after[a], a, names, paired, batch, bootstrap, seed) for a, names in classes.items() if a not in targeted
    ]


def attribute_drift(
    before: ArrayLike | Tensor,
    after: ArrayLike | Tensor,
    attribute: str,
    classes: Sequence[str],
    paired: bool = True,
    batch: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> DriftReport:
    """Measure the drift of one attribute.

    Probabilities [N, K] and [M, K]; N = M if they are paired.

    Errors as of :func:`drift`.
    """
    p, q = _probabilities(before), _probabilities(after)
    if p.shape[1] != len(classes) or q.shape[1] != len(classes):
        raise ValueError(f"'{attribute}' has {len(classes)} classes; met tables of {p.shape[1]} and {q.shape[1]} columns.")
    if paired and len(p) != len(q):
        raise ValueError(f"paired images need the same seeds in the same order: met {len(p)} before and {len(q)} after.")
    x, y = _one_hot(p), _one_hot(q)
    change = y.mean(0) - x.mean(0)
    generator = np.random.default_rng(seed)
    draws = _resampled(x, y, paired, batch, bootstrap, generator)
    bounds = np.quantile(draws, (0.025, 0.975), axis=0) if len(draws) else None
    largest = float(np.abs(change).max())
    chance = _swapped(x, y, bootstrap, generator) if paired else _dealt(x, y, bootstrap, generator)
    return DriftReport(
        attribute=attribute,
        classes=tuple(str(c) for c in classes),
        n_before=len(x),
        n_after=len(y),
        paired=paired,
        before=floats_of(x.mean(0)),
        after=floats_of(y.mean(0)),
        change=floats_of(change),
        change_low=None if bounds is None else floats_of(bounds[0]),
        change_high=None if bounds is None else floats_of(bounds[1]),
        drift=largest,
        total_variation=float(np.abs(change).sum() / 2),
        floor=float(chance.mean()) if len(chance) else 0.0,
        p_value=float((1 + (chance >= largest - 1e-12).sum()) / (1 + len(chance))),
        moved=float((x.argmax(1) != y.argmax(1)).mean()) if paired else None,
        unsure_before=float((p.max(1) < UNSURE_BELOW).mean()),
        unsure_after=float((q.max(1) < UNSURE_BELOW).mean()),
    )


def _resampled(x: Array, y: Array, paired: bool, batch: int, draws: int, generator: np.random.Generator) -> Array:
    """Compute the changes of resampled sets, [draws, K]."""
    if paired:
        return resampled_means(y - x, multiplicities(len(x), batch, draws, generator)[0])
    if min(len(x), len(y)) < 2:
        return np.empty((0, x.shape[1]))
    first, second = (resampled_means(t, multiplicities(len(t), batch, draws, generator)[0]) for t in (x, y))
    return second - first


def _swapped(x: Array, y: Array, draws: int, generator: np.random.Generator) -> Array:
    """Compute the largest changes if before and after are exchanged by a coin.

    For each pair; [draws].
    """
    signs = generator.integers(0, 2, size=(draws, len(x))) * 2.0 - 1.0
    return np.abs(signs @ (y - x) / len(x)).max(1)


def _dealt(x: Array, y: Array, draws: int, generator: np.random.Generator) -> Array:
    """Compute the largest changes if images are dealt anew to before and after.

    [draws].
    """
    # Only counts matter: those of the first set are multivariate hypergeometric.
    total = (x.sum(0) + y.sum(0)).astype(np.int64)
    first = generator.multivariate_hypergeometric(total, len(x), size=draws).astype(np.float64)
    return np.abs((total - first) / len(y) - first / len(x)).max(1)
