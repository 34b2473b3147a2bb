"""From a classifier's readings to what is reported: one panel per attribute, and one for the joint table of a joint target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from .fairness import ShareReport, joint_classes, joint_probabilities, measure

Readings = Mapping[str, ArrayLike | Tensor]
"""Attribute -> class probabilities [N, K]."""


@dataclass(frozen=True)
class Panel:
    """A report on one attribute, or on the cells of a joint table over several."""

    attributes: tuple[str, ...]
    """Names of the attributes."""
    classes: tuple[tuple[str, ...], ...]
    """Class names by attribute; the report's classes are their product, row-major."""
    report: ShareReport
    """Figures of the images."""
    baseline: ShareReport | None = None
    """Figures of the baseline images, if there are any."""

    @property
    def name(self) -> str:
        """ "eyeglasses", or "eyeglasses x hair"."""
        return " x ".join(self.attributes)

    def to_dict(self) -> dict[str, Any]:
        """Return the panel as plain numbers, strings and lists."""
        return {
            "attributes": list(self.attributes),
            "report": self.report.to_dict(),
            "baseline": self.baseline.to_dict() if self.baseline else None,
        }


def make_panels(
    readings: Readings,
    classes: Mapping[str, Sequence[str]],
    target: tuple[Sequence[str], Sequence[float]] | None = None,
    attributes: Sequence[str] = (),
    baseline: Readings | None = None,
    batch: int = 1,
    seed: int = 0,
) -> list[Panel]:
    """Make panels in the order of ``attributes``; a joint table comes first.

    readings: attribute -> probabilities [N, K] in the order of ``classes``. target: its attributes, and shares flattened row-major over
    *these* classes. attributes: which to report; none means those of the target, or all where there is no target. An attribute that the
    target does not name is compared with the uniform distribution. baseline: readings of other images. batch: see
    :func:`.fairness.measure`.

    Raises ValueError for an attribute that is not among ``classes``.
    """
    aimed = tuple(target[0]) if target else ()
    chosen = tuple(attributes) or aimed or tuple(classes)
    for attribute in (*chosen, *aimed):
        if attribute not in classes:
            known = "; ".join(f"{a} ({', '.join(c)})" for a, c in classes.items())
            raise ValueError(f"the classifier does not read '{attribute}'; it reads: {known}.")

    def panel(names: tuple[str, ...], shares: Sequence[float] | None) -> Panel:
        cells = joint_classes({a: classes[a] for a in names})

        def report(read: Readings) -> ShareReport:
            return measure(joint_probabilities({a: read[a] for a in names}), cells, shares, batch, seed=seed)

        return Panel(names, tuple(tuple(classes[a]) for a in names), report(readings), report(baseline) if baseline else None)

    panels = []
    if target and len(aimed) > 1 and set(aimed) <= set(chosen):
        panels.append(panel(aimed, target[1]))
    for attribute in dict.fromkeys(chosen):
        shares = _marginal(aimed, classes, target[1], attribute) if target and attribute in aimed else None
        panels.append(panel((attribute,), shares))
    return panels


def count_panels(
    attributes: Sequence[str], classes: Sequence[Sequence[str]], shares: Sequence[float], counts: Sequence[int]
) -> list[Panel]:
    """Make panels from counts of images per cell.

    Row-major over ``classes``, if no probabilities are known. Raises ValueError without images.
    """
    if not sum(counts):
        raise ValueError("no image was counted, and a histogram needs at least one.")
    sizes = [len(c) for c in classes]
    cells = np.unravel_index(np.repeat(np.arange(len(counts)), counts), sizes)
    readings = {a: np.eye(k)[index] for a, k, index in zip(attributes, sizes, cells, strict=True)}
    return make_panels(readings, dict(zip(attributes, classes, strict=True)), target=(attributes, shares))


def headline(panels: Sequence[Panel]) -> float:
    """Return the one FD that stands for all panels.

    That of the joint table, else the largest among panels with a stated target, else the largest of all.
    """
    joint = [p for p in panels if len(p.attributes) > 1]
    stated = [p for p in panels if p.report.target_given]
    return max(p.report.fd for p in (joint or stated or panels))


def _marginal(attributes: tuple[str, ...], classes: Mapping[str, Sequence[str]], shares: Sequence[float], attribute: str) -> list[float]:
    """Sum a joint table to the shares of one attribute's classes.

    The table is flattened row-major.
    """
    after = 1
    for other in attributes[attributes.index(attribute) + 1 :]:
        after *= len(classes[other])
    totals = [0.0] * len(classes[attribute])
    for cell, share in enumerate(shares):
        totals[cell // after % len(totals)] += share
    return totals
