"""How alike a classifier treats groups: accuracy by group, demographic parity, equalised odds, each with its uncertainty.

From hard decisions, in float64 on the CPU. The differences are fairlearn's (``demographic_parity_difference`` and
``equalized_odds_difference`` with ``method="between_groups"``), taken for every class against the rest; the largest counts. For two classes
both of them give the same number, which is fairlearn's.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from torch import Tensor

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
WORST, MEAN = "worst_case", "mean"
"""fairlearn's ``agg``: the greater of the two rates' differences, or their mean."""
FEW = 10
"""A rate of fewer images is named in the notes."""
CHUNK = 2**23


@dataclass(frozen=True)
class Rate:
    """A share of images in 0..1 with its Wilson interval.

    None if there are no images.
    """

    n: int
    """Number of images."""
    value: float | None
    """The share."""
    low: float | None
    """Lower bound of the interval."""
    high: float | None
    """Upper bound of the interval."""


@dataclass(frozen=True)
class Difference:
    """A difference between groups in 0..1; None where there is nothing to compare."""

    value: float | None
    """The difference."""
    low: float | None
    """Lower bound of its 95% interval (:func:`difference_interval`)."""
    high: float | None
    """Upper bound of that interval."""
    chance: float | None
    """Mean for a classifier that treats all groups alike, with as many images of every group and class."""


@dataclass(frozen=True)
class Group:
    """One group of images."""

    name: str
    """Name of the group."""
    accuracy: Rate
    """Share of its images that are read as labelled."""
    by_class: dict[str, dict[str, Rate]]
    """Class -> rates ``selected`` (read as it), ``true_positive`` (of its images) and ``false_positive`` (of the others)."""


@dataclass(frozen=True)
class ClassifierFairness:
    """Figures of a classifier by group, from :func:`measure_classifier`."""

    classes: tuple[str, ...]
    """Class names."""
    groups: tuple[Group, ...]
    """Figures by group."""
    n: int
    """Number of images."""
    accuracy: Rate
    """Accuracy over all images."""
    worst_group: str
    """Name of the group with the lowest accuracy."""
    worst_group_accuracy: Rate
    """Its accuracy; the interval holds for the lowest of the groups' true accuracies."""
    demographic_parity_difference: Difference
    """Largest difference between groups in how often a class is read."""
    equalised_odds_difference: Difference
    """Largest difference between groups in true or false positive rates."""
    mean_odds_difference: Difference
    """Equalised odds with fairlearn's ``agg="mean"``."""
    by_class: dict[str, dict[str, float | None]]
    """Class -> its two differences against the rest."""
    notes: tuple[str, ...]
    """Warnings in words."""
    bootstrap: int
    """Number of resamples."""
    seed: int
    """Seed of the resampling."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings and lists."""
        return json.loads(json.dumps(asdict(self), allow_nan=False))


def measure_classifier(
    truth: ArrayLike | Tensor,
    predicted: ArrayLike | Tensor,
    groups: ArrayLike | Tensor,
    classes: Sequence[str],
    group_names: Sequence[str],
    bootstrap: int = 2000,
    seed: int = 0,
) -> ClassifierFairness:
    """Measure a classifier's accuracy by group, and the differences between groups.

    Of N images.

    truth, predicted: int [N], indices into ``classes``; groups: int [N], indices into ``group_names``. Groups without images are left out;
    a rate without images (a group that has none of a class) takes part in no difference, where fairlearn takes it as 0.

    Raises ValueError where there are no images, arrays differ in length, an index is out of range, or fewer than two classes or no group
    are named.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes) or not group_names or len(set(group_names)) < len(group_names):
        raise ValueError(
            f"fairness of a classifier needs two or more different classes and at least one group; met classes {list(classes)} and groups "
            f"{list(group_names)}."
        )
    if bootstrap < 0:
        raise ValueError(f"bootstrap is at least 0; met {bootstrap}.")
    all_counts = confusion(truth, predicted, groups, len(classes), len(group_names))
    present = np.flatnonzero(all_counts.sum((1, 2)))
    names, counts = [str(group_names[g]) for g in present], all_counts[present]
    n = int(counts.sum())
    codes = np.repeat(np.arange(counts.size), counts.ravel())
    draws = resampled_counts(codes, counts.shape, bootstrap, seed)
    made = [_group(name, c, [str(x) for x in classes]) for name, c in zip(names, counts, strict=True)]
    worst, worst_rate = _worst(names, counts)

    def odds(agg: str) -> Callable[[NDArray[Any]], Array]:
        return lambda c: equalised_odds_difference(c, agg)

    rng = np.random.default_rng(seed)
    alike = fair_counts(counts, bootstrap, rng)
    selected = fair_counts(counts.sum(1, keepdims=True), bootstrap, rng)
    return ClassifierFairness(
        classes=tuple(str(c) for c in classes),
        groups=tuple(made),
        n=n,
        accuracy=rate(int(np.trace(counts.sum(0))), n),
        worst_group=worst,
        worst_group_accuracy=worst_rate,
        demographic_parity_difference=_difference(demographic_parity_difference, counts, draws, selected),
        equalised_odds_difference=_difference(odds(WORST), counts, draws, alike),
        mean_odds_difference=_difference(odds(MEAN), counts, draws, alike),
        by_class=_by_class(counts, [str(c) for c in classes]),
        notes=tuple(_notes(names, counts, [str(c) for c in classes])),
        bootstrap=bootstrap,
        seed=seed,
    )


def confusion(
    truth: ArrayLike | Tensor, predicted: ArrayLike | Tensor, groups: ArrayLike | Tensor, classes: int, group_count: int
) -> Counts:
    """Count images by group, true class and predicted class: int64 [G, K, K].

    Raises ValueError as :func:`measure_classifier` does.
    """
    indices = ((groups, "group", group_count), (truth, "true class", classes), (predicted, "read class", classes))
    columns = [_indices(*x) for x in indices]
    sizes = [len(c) for c in columns]
    if len(set(sizes)) > 1 or not sizes[0]:
        raise ValueError(f"expected a group, a true class and a class that was read for every image, one image at least; met {sizes}.")
    flat = (columns[0] * classes + columns[1]) * classes + columns[2]
    return np.bincount(flat, minlength=group_count * classes**2).reshape(group_count, classes, classes)


def demographic_parity_difference(counts: NDArray[Any]) -> Array:
    """Compute how differently groups are read: max_c (max_g - min_g) P(read c | g).

    counts [..., G, any, K] -> [...]; NaN if fewer than two groups have images.
    """
    chosen = counts.sum(-2)
    return _range(_share(chosen, chosen.sum(-1, keepdims=True))).max(-1)


def equalised_odds_difference(counts: NDArray[Any], agg: str = WORST) -> Array:
    """Compute how much error rates differ between groups.

    The largest over the classes c of: the greater (``agg`` "worst_case") or the mean ("mean") of the ranges over groups of P(read c | true
    c, g) and P(read c | true not c, g). counts [..., G, K, K] -> [...]; NaN if no rate can be compared.

    Raises ValueError for another ``agg``.
    """
    if agg not in (WORST, MEAN):
        raise ValueError(f"agg is '{WORST}' or '{MEAN}'; met '{agg}'.")
    both = np.stack([_range(r) for r in odds_rates(counts)], axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing to compare: nan, as documented
        # A mean of two rates of which one cannot be compared would be another quantity.
        per_class = np.nanmax(both, axis=-1) if agg == WORST else both.mean(-1)
        return np.nanmax(per_class, axis=-1)


def odds_rates(counts: NDArray[Any]) -> tuple[Array, Array]:
    """Compute the true and false positive rates of every class, by group.

    Every class against the rest. counts [..., G, K, K] -> two of [..., G, K]; NaN for a group without images of the kind.
    """
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    of_class, as_class = counts.sum(-1), counts.sum(-2)
    others = of_class.sum(-1, keepdims=True) - of_class
    return _share(hit, of_class), _share(as_class - hit, others)


def rate(hits: int, n: int, confidence: float = 0.95) -> Rate:
    """Return hits / n with Wilson's score interval (1927).

    It keeps a width at 0 and at 1.
    """
    if not n:
        return Rate(0, None, None, None)
    z = float(ndtri(0.5 + confidence / 2))
    p, scale = hits / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / scale, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return Rate(n, p, 0.0 if not hits else max(0.0, middle - half), 1.0 if hits == n else min(1.0, middle + half))


def resampled_counts(codes: NDArray[np.int64], shape: tuple[int, ...], draws: int, seed: int) -> Counts:
    """Count the cells of resampled sets of images: int64 [draws, *shape].

    ``draws`` sets of N images drawn with replacement; none for N < 2.

    codes int [N]: every image's flat index into ``shape``. The indices are those of ``scipy.stats.bootstrap`` with the same generator.
    """
    n, cells = len(codes), math.prod(shape)
    if n < 2 or draws < 1:
        return np.empty((0, *shape), dtype=np.int64)
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, draws, max(1, CHUNK // n)):
        m = min(max(1, CHUNK // n), draws - start)
        drawn = codes[rng.integers(0, n, (m, n))] + np.arange(m)[:, None] * cells
        parts.append(np.bincount(drawn.ravel(), minlength=m * cells).reshape(m, *shape))
    return np.concatenate(parts)


def fair_counts(counts: Counts, draws: int, rng: np.random.Generator) -> Counts:
    """Simulate the counts of a classifier that treats all groups alike.

    Of every true class, the decisions over all groups, drawn anew for each group's images. counts [G, T, K] -> [draws, G, T, K].
    """
    overall = counts.sum(0)
    made = np.zeros((draws, *counts.shape), dtype=np.int64)
    for g, t in np.ndindex(counts.shape[:2]):
        if (n := int(counts[g, t].sum())) and draws:
            made[:, g, t] = rng.multinomial(n, overall[t] / overall[t].sum(), size=draws)
    return made


def difference_interval(observed: float, draws: Array, alike: Array) -> tuple[float, float] | tuple[None, None]:
    """Return the 95% interval of a difference between groups.

    A difference cannot be below 0, and is never resampled below its own noise.

    draws: its values on resampled images; alike: those of a classifier that treats all groups alike. The upper bound is the 97.5%
    quantile of the draws, at least the observed value. The lower one is 0 where 5% of ``alike`` are as large as what was observed, else the
    smaller of the 2.5% quantile and the reflected upper one, 2 observed - q(97.5%).
    """
    draws, alike = draws[np.isfinite(draws)], alike[np.isfinite(alike)]
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975))
    by_chance = len(alike) and observed <= np.quantile(alike, 0.95)
    low = 0.0 if by_chance else max(0.0, min(low, 2 * observed - high))
    return float(low), float(max(high, observed))


def _difference(statistic: Callable[[NDArray[Any]], Array], counts: Counts, draws: Counts, alike: Counts) -> Difference:
    observed = float(statistic(counts))
    if not math.isfinite(observed):
        return Difference(None, None, None, None)
    fair = statistic(alike) if len(alike) else np.empty(0)
    low, high = difference_interval(observed, statistic(draws) if len(draws) else np.empty(0), fair)
    fair = fair[np.isfinite(fair)]
    return Difference(observed, low, high, float(fair.mean()) if len(fair) else None)


def _group(name: str, counts: Counts, classes: list[str]) -> Group:
    n = int(counts.sum())
    figures = {}
    for c, label in enumerate(classes):
        of_class, hits, chosen = int(counts[c].sum()), int(counts[c, c]), int(counts[:, c].sum())
        figures[label] = {
            "selected": rate(chosen, n),
            "true_positive": rate(hits, of_class),
            "false_positive": rate(chosen - hits, n - of_class),
        }
    return Group(name, rate(int(np.trace(counts)), n), figures)


def _worst(names: list[str], counts: Counts) -> tuple[str, Rate]:
    """Return the group with the lowest accuracy.

    Its interval is that of the lowest of all: each group's at 1 - 5% / G, so that they hold together.
    """
    rates = [rate(int(np.trace(c)), int(c.sum()), 1 - 0.05 / len(names)) for c in counts]
    at = int(np.argmin([r.value for r in rates]))
    low, high = (min(getattr(r, end) for r in rates) for end in ("low", "high"))
    return names[at], Rate(rates[at].n, rates[at].value, low, high)


def _by_class(counts: Counts, classes: list[str]) -> dict[str, dict[str, float | None]]:
    chosen = counts.sum(-2)
    true_positive, false_positive = odds_rates(counts)
    columns = {
        "demographic_parity_difference": _range(_share(chosen, chosen.sum(-1, keepdims=True))),
        "true_positive_difference": _range(true_positive),
        "false_positive_difference": _range(false_positive),
    }
    return {c: {k: float(v[i]) if math.isfinite(v[i]) else None for k, v in columns.items()} for i, c in enumerate(classes)}


def _notes(names: list[str], counts: Counts, classes: list[str]) -> list[str]:
    notes = []
    if len(names) < 2:
        notes.append(f"all images are of one group, {names[0]}: differences need two")
    for c, label in enumerate(classes):
        if not counts[:, c].sum():
            notes.append(f"no image shows {label}")
            continue
        for name, n in zip(names, counts[:, c].sum(1).tolist(), strict=True):
            if not n:
                notes.append(f"{name} has no images of {label}, and takes no part in that rate")
            elif n < FEW:
                notes.append(f"{name} has only {n} of {label}")
    return notes


def _indices(values: ArrayLike | Tensor, what: str, most: int) -> NDArray[np.int64]:
    x = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values).reshape(-1)
    if len(x) and (not np.issubdtype(x.dtype, np.integer) or x.min() < 0 or x.max() >= most):
        raise ValueError(f"the {what} indices are whole numbers from 0 to {most - 1}; met {x.dtype} from {x.min()} to {x.max()}.")
    return x.astype(np.int64)


def _share(part: NDArray[Any], total: NDArray[Any]) -> Array:
    return np.where(total > 0, part / np.maximum(total, 1), np.nan)


def _range(rates: Array) -> Array:
    """Compute max - min over the groups that have a rate.

    [..., G, K] -> [..., K]; NaN if fewer than two have one.
    """
    there = np.isfinite(rates)
    high, low = np.where(there, rates, 0.0).max(-2), np.where(there, rates, 1.0).min(-2)
    return np.where(there.sum(-2) > 1, high - low, np.nan)
