"""Target distributions: the share of images that each class, or each cell of a joint target, is to have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SEPARATOR = "/"
"""Between the class names of a cell, as in "yes/long"."""


@dataclass(frozen=True)
class TargetDistribution:
    """State the shares over the cells of one or more attributes."""

    attributes: tuple[str, ...]
    """Names of the attributes."""
    classes: tuple[tuple[str, ...], ...]
    """Classes of every attribute."""
    shares: tuple[float, ...]
    """Share of every cell, row-major over ``classes`` (the last attribute runs fastest). Not negative; they sum to 1."""
    notes: tuple[str, ...] = ()
    """Messages on how the user's weights were turned into shares."""

    def __post_init__(self) -> None:
        if len(self.shares) != math.prod(len(c) for c in self.classes) or len(self.attributes) != len(self.classes):
            raise ValueError(f"a target needs one share per cell: {len(self.shares)} shares for classes {self.classes}.")
        if any(s < 0 for s in self.shares) or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"the shares of a target are not negative and sum to 1; met {self.shares}.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of classes of every attribute."""
        return tuple(len(c) for c in self.classes)

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """Return the class names of every cell, in the order of ``shares``."""
        return list(itertools.product(*self.classes))

    @property
    def names(self) -> list[str]:
        """Return every cell as text, such as "yes/long"."""
        return [SEPARATOR.join(cell) for cell in self.cells]

    def marginal(self, attribute: str) -> dict[str, float]:
        """Return the share of every class of one attribute."""
        i = self.attributes.index(attribute)
        totals = dict.fromkeys(self.classes[i], 0.0)
        for cell, share in zip(self.cells, self.shares, strict=True):
            totals[cell[i]] += share
        return totals

    def cell_classes(self, cell: int) -> dict[str, int]:
        """Return the class index of a cell by attribute."""
        indices = []
        for classes in reversed(self.classes):
            cell, index = divmod(cell, len(classes))
            indices.append(index)
        return dict(zip(self.attributes, reversed(indices), strict=True))

    def reordered(self, known: Mapping[str, Sequence[str]]) -> TargetDistribution:
        """Return the same target in another class order, such as an ADP's or a classifier's.

        Classes that the target does not name get share 0. Raises ValueError for an attribute or class that is not known.
        """
        for attribute, classes in zip(self.attributes, self.classes, strict=True):
            check_known(attribute, classes, known)
        order = tuple(tuple(known[a]) for a in self.attributes)
        by_cell = dict(zip(self.cells, self.shares, strict=True))
        shares = tuple(by_cell.get(cell, 0.0) for cell in itertools.product(*order))
        return TargetDistribution(self.attributes, order, shares, self.notes)

    def __str__(self) -> str:
        cells = ", ".join(f"{n}={s:.4g}" for n, s in zip(self.names, self.shares, strict=True))
        return f"{' x '.join(self.attributes)}: {cells}"


def check_known(attribute: str, classes: Sequence[str], known: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for an attribute or class that is not known."""
    if attribute not in known:
        raise ValueError(f"the target names the attribute '{attribute}', which is not known here; known: {', '.join(known)}.")
    unknown = [c for c in classes if c not in known[attribute]]
    if unknown:
        raise ValueError(
            f"the target names the class '{unknown[0]}' of '{attribute}', which is not known here; known: {', '.join(known[attribute])}."
        )


def normalise(weights: Sequence[float]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Scale weights to shares that sum to 1; add a note if they did not.

    Raises ValueError for negative, non-finite or all-zero weights.
    """
    if any(not math.isfinite(w) or w < 0 for w in weights):
        met = ", ".join(f"{w:g}" for w in weights)
        raise ValueError(f"weights of a target are finite and not negative, and {met} was met: give every class a weight of 0 or more.")
    total = sum(weights)
    if total <= 0:
        raise ValueError("all the weights of the target are 0: give at least one class a weight above 0.")
    shares = tuple(w / total for w in weights)
    note = () if abs(total - 1) < 1e-6 else (f"the weights sum to {total:g} and were divided by it",)
    return shares, note


def make_target(weights: Mapping[str, Mapping[str, float]]) -> TargetDistribution:
    """Make a target from weights by attribute; several attributes are independent (product of the marginals)."""
    attributes, classes, marginals, notes = [], [], [], []
    for attribute, class_weights in weights.items():
        shares, note = normalise(list(class_weights.values()))
        attributes.append(attribute)
        classes.append(tuple(class_weights))
        marginals.append(shares)
        notes += [f"{attribute}: {n}" for n in note]
    shares = tuple(math.prod(cell) for cell in itertools.product(*marginals))
    return TargetDistribution(tuple(attributes), tuple(classes), shares, tuple(notes))


def product(first: TargetDistribution, second: TargetDistribution) -> TargetDistribution:
    """Join two independent targets. Raises ValueError where they share an attribute."""
    both = set(first.attributes) & set(second.attributes)
    if both:
        raise ValueError(f"both targets speak of '{both.pop()}': join targets over different attributes.")
    shares = tuple(a * b for a in first.shares for b in second.shares)
    return TargetDistribution(first.attributes + second.attributes, first.classes + second.classes, shares, first.notes + second.notes)
