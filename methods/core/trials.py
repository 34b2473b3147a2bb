"""Measure edits by trials: sample images with an edit, read their classes, and compare them with plain images.

Every calibration stands on this module. It knows neither moves nor profiles: the caller says how an edit is sampled and what to record.
A trial is written down as soon as it ends, and is not sampled again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...metrics.fairness import UNSURE_BELOW
from ...models.digests import values_digest
from ...models.files import DAMAGE, write_text

RISE = 0.03
"""Largest rise of the unsure share, and of the drift, that does not count as a loss of quality."""
STRENGTHS = (1.25, 1.6, 2.0)
"""Strengths above 1 at which quality is measured."""

Edited = TypeVar("Edited")
Settings = TypeVar("Settings")
Say = Callable[[str], None]
"""Receives one line about a trial that ended."""


@dataclass(frozen=True)
class TrialReadings:
    """What a judge reads in the images of one trial."""

    read: dict[str, Tensor]
    """Class probabilities [N, K] of every attribute that the judge reads."""
    cells: Tensor | None = None
    """Class that each image was assigned, int64 [N]; None for plain images."""

    def classes(self) -> dict[str, Tensor]:
        """Return the most probable class of each image, int64 [N], by attribute."""
        return {a: p.argmax(-1) for a, p in self.read.items()}

    def unsure(self) -> dict[str, float]:
        """Return the share of unsure images by attribute."""
        return {a: round(share_of(p.amax(-1) < UNSURE_BELOW), 4) for a, p in self.read.items()}

    def hits(self, attribute: str, classes: int) -> list[float]:
        """Return for every class the share of its images that show it."""
        shown = self.read[attribute].argmax(-1)
        cells = torch.full((len(shown),), -1) if self.cells is None else self.cells
        return [share_of(shown[cells == k] == k) for k in range(classes)]


@dataclass(frozen=True)
class TrialResult:
    """What a search learns from one trial."""

    hits: Tensor
    """Share of the images of each class that show it, [K]."""
    drift: float
    """Mean distance of the other attributes' shares within classes from those of plain images, 0 to 1 (total variation)."""

    def to_list(self) -> list[float]:
        """Return the hits and then the drift, rounded, for records."""
        return [round(float(h), 4) for h in self.hits] + [round(self.drift, 4)]


@dataclass
class TrialLog:
    """Trials that were made, in a JSON file."""

    path: Path | None
    """The file; None keeps the trials in memory only."""
    settings: Mapping[str, Any]
    """What the trials depend on. Trials in the file that were made with other settings are not used."""
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Records by key."""
    stale: bool = False
    """Whether the file holds trials with other settings, or is damaged."""

    def __post_init__(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["settings"] == json.loads(json.dumps(self.settings)):
                self.trials = {key: dict(record) for key, record in stored["trials"].items()}
            else:
                self.stale = True
        except (OSError, *DAMAGE):
            self.trials, self.stale = {}, True

    def keep(self, key: str, record: dict[str, Any]) -> None:
        """Add or replace a record, and write the file."""
        self.trials[key] = record
        if self.path is not None:
            write_text(self.path, json.dumps({"settings": self.settings, "trials": self.trials}, indent=1))

    def record(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the record of a trial, made now unless the log has it."""
        if key not in self.trials:
            self.keep(key, make())
        return self.trials[key]


@dataclass(frozen=True)
class TrialComparison:
    """Figures of a trial beside those that they may exceed by ``RISE`` at most."""

    unsure: float
    """Share of unsure images."""
    unsure_before: float
    """Unsure share to compare with."""
    drift: float
    """Drift of the other attributes."""
    drift_before: float
    """Drift to compare with."""
    towards: str = ""
    """Class that all images are sent to; empty for a target with several classes."""


@dataclass(frozen=True)
class Trials(Generic[Edited, Settings]):
    """The bench of a calibration: samples trials, keeps their records, and finds where quality ends."""

    sample: Callable[[Edited | None, Settings | None], TrialReadings]
    """Samples and reads images with an edit, or plain ones for (None, None). Every call starts from the same noise."""
    images: int
    """Images of one trial."""
    log: TrialLog
    """Records of the trials."""
    say: Say = lambda text: None
    """Receives lines of progress."""

    def unsure_rises(self, unsure: float, before: float) -> bool:
        """Tell whether more images are unsure than chance explains.

        The share must rise by more than ``RISE``, and by two images at least.
        """
        rise = unsure - before
        return rise > RISE and rise * self.images > 1.5

    def quality(self, compared: Callable[[float], Iterable[TrialComparison]]) -> dict[str, Any]:
        """Raise the strength until images become unsure or other attributes drift.

        Return the limit and a text.

        ``compared`` samples the trials of one strength. A trial that comes after the first loss of quality is not asked for.
        """
        limit = 1.0
        for strength in STRENGTHS:
            for comparison in compared(strength):
                loss = self._loss(comparison)
                if loss:
                    towards = f" towards '{comparison.towards}'" if comparison.towards else ""
                    return {"limit": limit, "text": f"quality holds up to strength {limit:g}; at {strength:g}{towards}, {loss}"}
            limit = strength
        return {"limit": limit, "text": f"quality holds up to strength {limit:g}; no higher strength was tried"}

    def _loss(self, c: TrialComparison) -> str:
        """Describe what got worse; empty if nothing did."""
        if self.unsure_rises(c.unsure, c.unsure_before):
            return f"{c.unsure:.1%} of the images are unsure (before: {c.unsure_before:.1%})"
        if c.drift - c.drift_before > RISE:
            return f"the drift of other attributes rises from {c.drift_before:.3f} to {c.drift:.3f}"
        return ""


def reachable(share: float, images: int) -> float:
    """Lower a wanted share to one that a trial can reach.

    The number of images that may miss is rounded up.

    Asking 48 images for 98.5% asks for all 48, and one that never hits drives the search to its end: sizes of three times those that were
    enough, which then missed more images under another sampler (96.1% of 512; see docs/evidence/samplers.md).
    """
    return 1 - math.ceil((1 - share) * images - 1e-9) / max(1, images)


def composition(read: Mapping[str, Tensor], attribute: str, classes: Mapping[str, int], weights: Tensor | None = None) -> dict[str, Tensor]:
    """Return the shares of every other attribute within each class of one, [K, classes].

    NaN if a class is empty.

    read: attribute -> class index int64 [N]; weights [N], default 1.
    """
    w = torch.ones(len(read[attribute])) if weights is None else weights
    tables = {}
    for other in classes:
        if other != attribute:
            table = torch.zeros(classes[attribute], classes[other]).index_put_((read[attribute], read[other]), w, accumulate=True)
            tables[other] = table / table.sum(-1, keepdim=True)
    return tables


def composition_drift(shares: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Return the mean total variation distance between rows of two compositions.

    Rows of NaN are left out.
    """
    distances = [0.5 * (shares[a] - reference[a]).abs().sum(-1) for a in reference]
    return float(torch.cat(distances).nanmean()) if distances else 0.0


def paired_change(first: Sequence[int], second: Sequence[int], classes: int) -> Tensor:
    """Compare the classes of the same images in two trials, float32 [K, N].

    1 if only the first shows class k, -1 if only the second does, else 0.
    """
    every = torch.arange(classes)[:, None]
    return (torch.tensor(first) == every).float() - (torch.tensor(second) == every).float()


def trial_key(text: str) -> str:
    """Return the key of a trial that depends on no tensors.

    It is as long as those of ``LevelTable.digest``.
    """
    return values_digest([text], digits=20)


def share_of(mask: Tensor) -> float:
    """Return the share of True; 0 if the mask is empty."""
    return float(mask.float().mean()) if len(mask) else 0.0


def rounded_windows(windows: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    """Round windows of log-SNR, by source, for a record."""
    return {source: [round(v, 3) for v in window] for source, window in windows.items()}
