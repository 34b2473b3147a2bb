"""Target distributions: the share of images that each class, or each cell of a joint target, is to have."""

from __future__ import annotations

import itertools
import math
import re
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
            _check_known(attribute, classes, known)
        order = tuple(tuple(known[a]) for a in self.attributes)
        by_cell = dict(zip(self.cells, self.shares, strict=True))
        shares = tuple(by_cell.get(cell, 0.0) for cell in itertools.product(*order))
        return TargetDistribution(self.attributes, order, shares, self.notes)

    def __str__(self) -> str:
        cells = ", ".join(f"{n}={s:.4g}" for n, s in zip(self.names, self.shares, strict=True))
        return f"{' x '.join(self.attributes)}: {cells}"


def _check_known(attribute: str, classes: Sequence[str], known: Mapping[str, Sequence[str]]) -> None:
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


EQUAL = ("uniform", "balanced", "even")
"""Words for equal shares."""
_WEIGHT = re.compile(r"^\s*(?P<name>[^=]+?)\s*=\s*(?P<value>[-+0-9.eE%]+)\s*$")


def _read_weights(text: str, names: Sequence[str], what: str) -> tuple[list[float], list[str]]:
    """Read weights in the order of ``names``.

    Names left out share equally the rest to 1 (or 100%), or get 0 without a rest.
    """
    if text.strip().lower() in EQUAL:
        return [1 / len(names)] * len(names), []
    by_name: dict[str, float] = {}
    for part in filter(str.strip, re.split(r"[,\n]", text)):
        match = _WEIGHT.match(part)
        if not match:
            raise ValueError(f"'{part.strip()[:60]}' is not a weight: write NAME=NUMBER, for instance {names[0]}=0.5.")
        name, value = match["name"], match["value"]
        if name not in names:
            raise ValueError(f"{what} has no '{name}'; known: {', '.join(names)}.")
        if name in by_name:
            raise ValueError(f"{what}: '{name}' is given twice.")
        try:
            by_name[name] = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            raise ValueError(f"'{value}' is not a number: write {name}=0.5 or {name}=50%.") from None
    if not by_name:
        raise ValueError(f"{what}: no weights given; write for instance '{names[0]}=0.5' or 'uniform'.")
    missing = [n for n in names if n not in by_name]
    left = 1 - sum(by_name.values())
    notes = []
    if missing:
        each = left / len(missing) if left > 1e-9 else 0.0
        notes.append(f"{', '.join(missing)} not given: {each:g} each")
        by_name |= dict.fromkeys(missing, each)
    return [by_name[n] for n in names], notes


def parse_target(text: str, known: Mapping[str, Sequence[str]]) -> TargetDistribution:
    """Read a target from text such as "hair: long=0.4, short=0.6".

    ``eyeglasses: yes=0.5, no=0.5`` is one attribute; several, separated by ``;``, are independent; ``eyeglasses x hair: yes/long=0.4, ...``
    is a joint table; ``uniform`` stands for equal shares. Classes left out share the rest equally. Weights need not sum to 1.

    ``known``: attribute -> classes in order. Raises ValueError for what is not known or not understood.
    """
    tables: list[TargetDistribution] = []
    for part in filter(str.strip, text.split(";")):
        head, colon, tail = part.partition(":")
        if not colon:
            raise ValueError(
                f"'{part.strip()}' is not a target: write ATTRIBUTE: CLASS=SHARE, ..., for instance 'eyeglasses: yes=0.5, no=0.5'."
            )
        attributes = tuple(a.strip() for a in re.split(r"\s+x\s+|\*", head.strip()))
        for attribute in attributes:
            _check_known(attribute, (), known)
        if len(set(attributes)) != len(attributes):
            raise ValueError(f"'{head.strip()}' names an attribute twice.")
        classes = tuple(tuple(known[a]) for a in attributes)
        names = [SEPARATOR.join(cell) for cell in itertools.product(*classes)]
        weights, notes = _read_weights(tail, names, f"'{' x '.join(attributes)}'")
        shares, more = normalise(weights)
        tables.append(TargetDistribution(attributes, classes, shares, (*notes, *more)))
    if not tables:
        raise ValueError("the target is empty: write for instance 'eyeglasses: yes=0.5, no=0.5'.")
    attributes = tuple(a for t in tables for a in t.attributes)
    if len(set(attributes)) != len(attributes):
        raise ValueError("an attribute occurs in two parts of the target: write it once, or as one joint table 'A x B: ...'.")
    shares = tuple(math.prod(cell) for cell in itertools.product(*(t.shares for t in tables)))
    return TargetDistribution(attributes, tuple(c for t in tables for c in t.classes), shares, tuple(n for t in tables for n in t.notes))


PRESETS = ("weights", "uniform")


def target_from_form(attributes: str, preset: str, weights: str, known: Mapping[str, Sequence[str]] | None) -> TargetDistribution:
    """Make a target from the inputs of a node.

    ``attributes`` is "A" or "A x B"; ``weights`` is "yes=0.5, no=0.5" or "yes/long=0.4, ...". ``known`` (attribute -> classes) is what the
    connected ADP or classifier knows. Without it, the classes are those that ``weights`` names, in that order.
    Raises ValueError for text that is not understood, names that are not known, and weights that are negative or all zero.
    """
    names = [a.strip() for a in re.split(r"\s+x\s+|\*", attributes.strip())]
    if not all(names):
        raise ValueError("the target names no attribute: write one, for instance eyeglasses, or two as 'eyeglasses x hair'.")
    if known is None:
        cells = [part.split("=")[0].strip() for part in re.split(r"[,\n]", weights) if part.strip()]
        split = [cell.split(SEPARATOR) for cell in cells]
        if not cells or weights.strip().lower() in EQUAL or any(len(parts) != len(names) for parts in split):
            raise ValueError(
                f"the weights have to name the classes, as {'yes=0.5, no=0.5' if len(names) == 1 else 'yes/long=0.25, ...'} for "
                f"{attributes.strip()}; "
                f"met '{weights.strip()}': name them, or connect an ADP, which knows its classes."
            )
        known = {name: tuple(dict.fromkeys(parts[i].strip() for parts in split)) for i, name in enumerate(names)}
    text = "uniform" if preset == "uniform" else weights
    return parse_target(f"{' x '.join(names)}: {text}", known)


def product(first: TargetDistribution, second: TargetDistribution) -> TargetDistribution:
    """Join two independent targets. Raises ValueError where they share an attribute."""
    both = set(first.attributes) & set(second.attributes)
    if both:
        raise ValueError(f"both targets speak of '{both.pop()}': join targets over different attributes.")
    shares = tuple(a * b for a in first.shares for b in second.shares)
    return TargetDistribution(first.attributes + second.attributes, first.classes + second.classes, shares, first.notes + second.notes)
