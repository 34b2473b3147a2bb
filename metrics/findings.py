"""All that a fairness report states, from what networks read in sets of images: base, steered and, where there is one, a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .drift import DriftReport, drift
from .fairness import joint_probabilities
from .frechet import FrechetReport, frechet, frechet_distance
from .judge_calibration import AgreementReport, judge_agreement
from .kernel import KernelReport, clip_mmd, kid
from .paired import PairedReport, paired_similarity
from .panels import Panel, Readings, headline, make_panels
from .prompt_agreement import PromptReport, agreement_change, prompt_agreement

Array = NDArray[np.float64]
BASE, STEERED, REFERENCE = "base", "steered", "reference"
AT_TARGET = "reference at the target's shares"
LEAST_WITHIN = 8
"""Images of a class on either side below which no distance within the class is stated."""
SPLITS, DRAWS = 5, 500
"""Random splits behind a floor of a Frechet distance; resamples and permutations behind a kernel distance."""


@dataclass(frozen=True)
class Reader:
    """A classifier's readings of each set of images."""

    name: str
    """Name of the classifier."""
    classes: Mapping[str, Sequence[str]]
    """Attribute -> class names."""
    base: Readings
    """Attribute -> probabilities [N, K] of the base images."""
    steered: Readings
    """The same of the steered images."""
    reference: Readings | None = None
    """The same of the reference images, if there are any."""


@dataclass(frozen=True)
class Embedding:
    """A network's features [N, D] of each set of images."""

    name: str
    """Name of the network."""
    base: ArrayLike | Tensor
    """Features of the base images."""
    steered: ArrayLike | Tensor
    """Features of the steered images."""
    reference: ArrayLike | Tensor | None = None
    """Features of the reference images, if there are any."""
    clip: bool = False
    """Whether they are projected CLIP embeddings."""


@dataclass(frozen=True)
class Judged:
    """Figures of one classifier."""

    name: str
    """Name of the classifier."""
    panels: tuple[Panel, ...]
    """A panel per attribute, and one for a joint table: steered and base images."""
    drift: tuple[DriftReport, ...]
    """Drift of the other attributes."""


@dataclass(frozen=True)
class Quality:
    """Distance of one set of images to another in a network's features."""

    features: str
    """Name of the network."""
    what: str
    """The set."""
    to: str
    """The set that it is compared with."""
    frechet: FrechetReport
    """Frechet distance."""
    kernel: KernelReport | None
    """Kernel distance; None where images are weighted."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain numbers, strings and lists."""
        kernel = self.kernel.to_dict() if self.kernel else None
        return {"features": self.features, "what": self.what, "to": self.to, "frechet": self.frechet.to_dict(), "kernel": kernel}


@dataclass(frozen=True)
class Prompted:
    """Agreement of the images with the prompt."""

    base: PromptReport
    """Agreement of the base images."""
    steered: PromptReport
    """Agreement of the steered images."""
    change: tuple[float, float | None, float | None] | None
    """Mean change with its bounds; None where seeds differ."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain numbers and lists."""
        return {
            "base": self.base.to_dict(),
            "steered": self.steered.to_dict(),
            "change": None if self.change is None else list(self.change),
        }


@dataclass(frozen=True)
class Findings:
    """All figures of a fairness report."""

    n: dict[str, int]
    """Images by set."""
    paired: bool
    """Whether images at the same place have the same seed."""
    batch: int
    """Steered images that were sampled together."""
    judged: tuple[Judged, ...]
    """Figures by classifier, the judge first."""
    quality: tuple[Quality, ...]
    """Distances between sets."""
    similarity: dict[str, PairedReport]
    """Network -> same-seed similarity."""
    prompted: Prompted | None
    """Agreement with the prompt, if there is one."""
    agreement: dict[tuple[str, str, str], AgreementReport]
    """(Other classifier, set, attribute) -> agreement of the judge with it."""
    unstated: tuple[str, ...]
    """What could not be measured, with the reason."""

    @property
    def fd(self) -> float:
        """The one FD that stands for all, of the steered images by the judge."""
        return headline(self.judged[0].panels)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain numbers, strings and lists."""
        return {
            "n": dict(self.n),
            "paired": self.paired,
            "batch": self.batch,
            "fd": self.fd,
            "judged": [
                {"classifier": j.name, "panels": [p.to_dict() for p in j.panels], "drift": [d.to_dict() for d in j.drift]}
                for j in self.judged
            ],
            "quality": [q.to_dict() for q in self.quality],
            "similarity": {name: report.to_dict() for name, report in self.similarity.items()},
            "prompt_agreement": self.prompted.to_dict() if self.prompted else None,
            "agreement": [
                {"with": other, "images": images, "attribute": attribute, **report.to_dict()}
                for (other, images, attribute), report in self.agreement.items()
            ],
            "unstated": list(self.unstated),
        }


@dataclass(frozen=True)
class ComparisonSettings:
    """How base and steered images are compared."""

    attributes: Sequence[str] = ()
    """Attributes to report; none means those of the target, or all."""
    paired: bool = True
    """Whether images at the same place have the same seed."""
    batch: int = 1
    """Number of steered images that were sampled together."""
    seed: int = 0
    """Seed of the resampling."""


def findings_of(
    readers: Sequence[Reader],
    targets: Sequence[tuple[Sequence[str], Sequence[float]] | None],
    embeddings: Sequence[Embedding] = (),
    others: Sequence[Reader] = (),
    prompt: tuple[ArrayLike | Tensor, ArrayLike | Tensor, ArrayLike | Tensor] | None = None,
    comparison: ComparisonSettings | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Findings:
    """Measure all that the given readings allow.

    readers: the judge first, then classifiers to show beside it. targets: one per reader, in that reader's class order (see
    :func:`.panels.make_panels`), None where there is none. others: readers whose agreement with the judge is stated, such as the labeller.
    prompt: CLIP embeddings of base images, steered images and the one text. tick: called before every distance, which takes a second or
    several with thousands of images; it may raise to stop.

    Raises ValueError where readings do not fit, or paired sets differ in number.
    """
    comparison = comparison or ComparisonSettings()
    paired, batch, seed = comparison.paired, comparison.batch, comparison.seed
    judge = readers[0]
    n = {BASE: _length(judge.base), STEERED: _length(judge.steered)} | ({REFERENCE: _length(judge.reference)} if judge.reference else {})
    if paired and n[BASE] != n[STEERED]:
        raise ValueError(
            f"with the same seeds there are as many base images as steered ones; met {n[BASE]} and {n[STEERED]}: switch same_seeds off, or "
            "connect images of the same seeds."
        )
    judged = tuple(_judged(r, t, comparison.attributes, paired, batch, seed) for r, t in zip(readers, targets, strict=True))
    unstated: list[str] = []
    quality = [q for e in embeddings for q in _quality(e, judge, judged[0].panels[0], seed, unstated, tick)]
    similarity = {e.name: paired_similarity(e.base, e.steered, batch, seed=seed) for e in embeddings} if paired else {}
    return Findings(
        n=n,
        paired=paired,
        batch=batch,
        judged=judged,
        quality=tuple(quality),
        similarity=similarity,
        prompted=_prompted(*prompt, paired, batch, seed) if prompt else None,
        agreement={key: report for other in (*readers[1:], *others) for key, report in _agreement(judge, other).items()},
        unstated=tuple(dict.fromkeys(unstated)),
    )


def cells_of(readings: Readings, panel: Panel) -> NDArray[np.int64]:
    """Return the cell of a panel's table in which each image counts, [N]."""
    return joint_probabilities({a: readings[a] for a in panel.attributes}).argmax(1)


def _length(readings: Readings) -> int:
    return len(next(iter(readings.values())))


def _judged(
    reader: Reader,
    target: tuple[Sequence[str], Sequence[float]] | None,
    attributes: Sequence[str],
    paired: bool,
    batch: int,
    seed: int,
) -> Judged:
    panels = make_panels(reader.steered, reader.classes, target, attributes, batch=batch, seed=seed)
    # No one decided over batches of base images: they are resampled one by one.
    before = make_panels(reader.base, reader.classes, target, attributes, seed=seed)
    panels = [replace(p, baseline=b.report) for p, b in zip(panels, before, strict=True)]
    left = drift(reader.base, reader.steered, reader.classes, target[0] if target else (), paired, batch, seed=seed)
    return Judged(reader.name, tuple(panels), tuple(left))


def _quality(e: Embedding, judge: Reader, panel: Panel, seed: int, unstated: list[str], tick: Callable[[], None]) -> list[Quality]:
    """Measure the distances of base and steered images to the reference.

    Also to the reference at the target's shares, and within classes. Without a reference, of the steered images to the base ones.
    """
    sets = {BASE: np.asarray(_array(e.base)), STEERED: np.asarray(_array(e.steered))}
    reference = None if e.reference is None else _array(e.reference)
    small = [f"{len(x)} {name}" for name, x in {**sets, REFERENCE: reference}.items() if x is not None and len(x) < 2]
    if small:
        unstated.append(f"distances of quality need at least two images in every set, and there are {', '.join(small)} images")
        return []
    if reference is None:
        unstated.append("how near the images are to real ones: no reference images are connected")
        return [_row(e, STEERED, BASE, sets[STEERED], sets[BASE], seed, tick)]
    assert judge.reference is not None
    rows = {name: _row(e, name, REFERENCE, x, reference, seed, tick) for name, x in sets.items()}
    there = cells_of(judge.reference, panel)
    weights = _weights(there, panel, unstated) if panel.report.target_given else None
    weighted = [] if weights is None else [_weighted(rows[name], x, reference, weights) for name, x in sets.items()]
    cells = {BASE: cells_of(judge.base, panel), STEERED: cells_of(judge.steered, panel)}
    within, few = [], []
    for index, cell in enumerate(panel.report.classes):
        for name, x in sets.items():
            mine, theirs = x[cells[name] == index], reference[there == index]
            if min(len(mine), len(theirs)) < LEAST_WITHIN:
                few.append(f"'{cell}' ({name})")
            else:
                within.append(_row(e, f"{name}, '{cell}' only", f"{REFERENCE}, '{cell}' only", mine, theirs, seed, tick))
    if few:
        unstated.append(f"distances within {', '.join(few)}: they need {LEAST_WITHIN} images of the class on either side")
    return [*rows.values(), *weighted, *within]


def _row(e: Embedding, what: str, to: str, x: Array, y: Array, seed: int, tick: Callable[[], None]) -> Quality:
    tick()
    kernel = (clip_mmd if e.clip else kid)(x, y, DRAWS, DRAWS, seed)
    return Quality(e.name, what, to, frechet(x, y, repeats=SPLITS, seed=seed), kernel)


def _weighted(row: Quality, x: Array, reference: Array, weights: Array) -> Quality:
    """Measure the same distances to a weighted reference.

    The floor is that of the row, because it knows no weights.
    """
    report = replace(row.frechet, value=frechet_distance(x, reference, weights))
    return Quality(row.features, row.what, AT_TARGET, report, None)


def _array(values: ArrayLike | Tensor) -> Array:
    return np.asarray(values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values, dtype=np.float64)


def _weights(cells: NDArray[np.int64], panel: Panel, unstated: list[str]) -> Array | None:
    """Weight reference images so that their cells have the target's shares.

    None if a cell that is asked for has no image.
    """
    counts, target = np.bincount(cells, minlength=len(panel.report.target)), np.asarray(panel.report.target)
    lacking = [c for c, n, t in zip(panel.report.classes, counts, target, strict=True) if t > 0 and not n]
    if lacking:
        unstated.append(f"the reference at the target's shares: it has no image of {', '.join(lacking)}")
        return None
    weights = (target / np.maximum(counts, 1))[cells]
    if (weights > 0).sum() < 2:
        unstated.append("the reference at the target's shares: fewer than two of its images are of a class that is asked for")
        return None
    return weights


def _prompted(base: Any, steered: Any, text: Any, paired: bool, batch: int, seed: int) -> Prompted:
    change = agreement_change(base, steered, text, batch=batch, seed=seed) if paired else None
    return Prompted(prompt_agreement(base, text, seed=seed), prompt_agreement(steered, text, batch=batch, seed=seed), change)


def _agreement(judge: Reader, other: Reader) -> dict[tuple[str, str, str], AgreementReport]:
    """Compare two classifiers on the attributes that both know.

    They need the same classes, which are matched by name.
    """
    reports = {}
    for attribute, classes in judge.classes.items():
        theirs = tuple(other.classes.get(attribute, ()))
        if set(theirs) != set(classes):
            continue
        order = [theirs.index(c) for c in classes]
        for images, mine, read in ((BASE, judge.base, other.base), (STEERED, judge.steered, other.steered)):
            labels = _array(read[attribute])[:, order]
            reports[other.name, images, attribute] = judge_agreement(mine[attribute], labels, tuple(classes))
    return reports
