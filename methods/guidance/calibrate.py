"""Calibrate an ADP's moves by trials, with a host or without.

The caller samples images: plain ones, or under a uniform target with a move. Directions read off a feature set get signed sizes by bands of
noise levels, and learned moves get gains by class (:mod:`.calibration`). The move that hits most without making more images unsure becomes
the default. The file keeps the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...models.adp import AdpFile, Move
from ...models.sites import MIDDLE
from ..adp.figures import along
from ..core.targets import make_target
from ..core.trials import (
    STRENGTHS,
    TrialComparison,
    TrialReadings,
    TrialResult,
    Trials,
    composition,
    composition_drift,
    reachable,
    rounded_windows,
)
from ..data.feature_set import FeatureSet
from ..labels.labels import LabelSet, for_entries
from .calibration import BANDS, Trial, calibrate, calibrate_direction
from .direction_rows import direction_levels, images_for_directions, rows_at
from .directions import KINDS, direction_move
from .moves import FITTED
from .run import GuidanceSettings

STAGE = "compare_directions"
MIDDLE_SIZES, WANTED_SHARE = (0.15, 0.4, 0.8, 1.6, 3.2), 0.985
"""Sizes in the middle band, in norms of h (what a model needs differs by more than ten times), and hits that end the search."""
MARGIN = 1.5
"""Factor on the smallest gain of a learned move that reaches the wanted share. This is a choice: a few dozen images cannot tell 93% from
99%, and 1.6 times the size that was enough raised the drift of other attributes by 0.01 only. It does not mend a predictor that was made
from few images: of a file made from 1,000, sizes 1.1, 1.5 and 2.2 times the one that was enough for 96 of 96 images all brought 94 to 97%
to their class."""
TRIALS_EACH, TRIALS_LEARNED = 9, 24
"""Largest number of trials of one direction (calibrate_direction) and of one learned move (calibrate)."""

MoveTrials = Trials[AdpFile, GuidanceSettings]


@dataclass(frozen=True)
class CalibratedMoves:
    """Moves of one attribute after their calibration."""

    file: AdpFile
    """The ADP with the calibrated moves."""
    lines: list[str]
    """Report."""
    trials: dict[str, list[dict[str, Any]]]
    """Records of the trials in order, by attribute."""
    plain_unsure: dict[str, float]
    """Share of unsure plain images, by attribute."""


class MoveBench:
    """Calibrates the moves of one ADP. ``seed``: decides which image is assigned which class."""

    def __init__(self, adp: AdpFile, trials: MoveTrials, seed: int) -> None:
        self.adp, self.trials, self.seed = adp, trials, seed
        self._plain: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Return unsure shares of plain images, and what goes along with every class."""
        if self._plain is None:
            self._plain = self.trials.log.record("plain", self._sample_plain)
        return self._plain

    def _sample_plain(self) -> dict[str, Any]:
        readings = self.trials.sample(None, None)
        shown, sizes = readings.classes(), {a: p.shape[1] for a, p in readings.read.items()}
        unsure = readings.unsure()
        self.trials.say("plain images: unsure " + ", ".join(f"{a} {u:.1%}" for a, u in unsure.items()))
        tables = {a: {o: _numbers(t) for o, t in composition(shown, a, sizes).items()} for a in sizes}
        return {"unsure": unsure, "composition": tables}

    def trial(self, attribute: str) -> Trial:
        """Return a function that tries a move of an attribute under a uniform target."""

        def run(move: Move) -> TrialResult:
            record = self.record(attribute, move)
            return TrialResult(torch.tensor(record["hits"]), record["drift"])

        return run

    def record(self, attribute: str, move: Move, strength: float = 1.0) -> dict[str, Any]:
        """Return the record of a move's trial, sampled now unless the log has it."""
        text = f"{attribute} {move.source} {move.site} {move.assign} {strength:g}"
        return self.trials.log.record(move.digest(text), lambda: self._sample(attribute, move, strength))

    def _sample(self, attribute: str, move: Move, strength: float) -> dict[str, Any]:
        plain = self.plain()
        classes = self.adp.attributes[attribute]
        target = make_target({attribute: dict.fromkeys(classes, 1 / len(classes))})
        tried = replace(self.adp, moves={attribute: move}, alternatives={}, info={})
        readings = self.trials.sample(tried, GuidanceSettings(target, seed=self.seed, strength=strength))
        return {
            "attribute": attribute,
            "source": move.source,
            "site": move.site,
            "sizes": band_sizes(move),
            "assign": move.assign,
            "strength": strength,
            "hits": [round(h, 4) for h in readings.hits(attribute, len(classes))],
            "drift": round(_drift(readings, attribute, plain["composition"][attribute]), 4),
            "unsure": readings.unsure()[attribute],
        }

    def calibrate(self, attribute: str, candidates: Sequence[Move]) -> CalibratedMoves:
        """Calibrate these moves of an attribute, choose the best, and find where its quality ends."""
        done: dict[str, tuple[Move, dict[str, Any]]] = {}
        for move in candidates:
            sized = self._sized(attribute, move)
            done[sized.source] = sized, self.record(attribute, sized)
        plain = self.plain()["unsure"][attribute]

        def worth(source: str) -> tuple[bool, float, float]:
            r = done[source][1]
            return not self.trials.unsure_rises(r["unsure"], plain), round(_mean(r["hits"]), 2), -r["drift"]

        best = max(done, key=worth)
        records = {s: r for s, (_, r) in done.items()}
        record = {
            "hits": {s: round(_mean(r["hits"]), 4) for s, r in records.items()},
            "by_class": {s: r["hits"] for s, r in records.items()},
            "drift": {s: r["drift"] for s, r in records.items()},
            "unsure": {s: r["unsure"] for s, r in records.items()},
            "unsure_plain": plain,
            "sizes": {s: r["sizes"] for s, r in records.items()},
            "bands": list(BANDS),
            "window": rounded_windows({s: m.window for s, (m, _) in done.items()}),
            "images": self.trials.images,
            "quality": self._quality(attribute, *done[best]),
            **{k: v for k, v in self.trials.log.settings.items() if k in ("judge", "sampler", "features")},
        }
        file = with_moves(self.adp, attribute, {s: m for s, (m, _) in done.items()}, best, record)
        tried = [t for t in self.trials.log.trials.values() if t.get("attribute") == attribute and t["source"] in done]
        trials = [{**t, "chosen": records[t["source"]] is t, "best": records[best] is t} for t in tried]
        return CalibratedMoves(file, _lines(attribute, file, record, best), {attribute: trials}, {attribute: plain})

    def _sized(self, attribute: str, move: Move) -> Move:
        """Search the sizes of one move."""
        trial = self.trial(attribute)
        if move.source in FITTED:
            share = reachable(WANTED_SHARE, self.trials.images // len(self.adp.attributes[attribute]))
            return calibrate(move, trial, share, MARGIN, self.trials.say)[0]
        return calibrate_direction(move, trial, self.trials.say, MIDDLE_SIZES, WANTED_SHARE)[0]

    def _quality(self, attribute: str, move: Move, at_one: dict[str, Any]) -> dict[str, Any]:
        """Find up to which strength images stay sure and other attributes stay."""
        plain = self.plain()["unsure"][attribute]
        if self.trials.unsure_rises(at_one["unsure"], plain):
            text = (
                f"quality: at strength 1, {at_one['unsure']:.1%} of the images are unsure (plain images: {plain:.1%}); "
                "use a lower strength"
            )
            return {"limit": None, "text": text}

        def compared(strength: float) -> list[TrialComparison]:
            r = self.record(attribute, move, strength)
            return [TrialComparison(r["unsure"], plain, r["drift"], at_one["drift"])]

        return self.trials.quality(compared)


def directions_of(features: FeatureSet, labels: LabelSet, attribute: str) -> list[Move]:
    """Compute the three uncalibrated directions of an attribute from a feature set."""
    p = for_entries(labels, features.entries, [attribute])[attribute]
    chosen = images_for_directions(p)
    levels = direction_levels(features)
    rows = rows_at(features.folder, [features.entries[i] for i in chosen], levels)
    hard = p[chosen].argmax(-1)
    level = torch.tensor(levels).repeat(len(chosen))
    each = hard.repeat_interleave(len(levels))
    site = str(features.meta.get("site", MIDDLE))
    return [direction_move(kind, rows.flatten(0, 1), level, each, p.shape[1], site=site) for kind in KINDS]


def reading_levels(adp: AdpFile, low: float, high: float) -> dict[str, float]:
    """Find, for every attribute, the log-SNR in an interval where the ADP reads best.

    Finished images are read at these levels.
    """
    levels = {}
    for attribute in adp.read:
        curve = adp.info.get("accuracy_by_log_snr", {}).get(attribute) or [[0.0, 0.0]]
        inside = [c for c in curve if low <= c[0] <= high] or [[min(max(0.0, low), high), 0.0]]
        top = max(v for _, v in inside)
        near = [at for at, v in inside if v >= top - 0.005]
        levels[attribute] = near[len(near) // 2]
    return levels


def with_moves(file: AdpFile, attribute: str, made: Mapping[str, Move], best: str, record: dict[str, Any]) -> AdpFile:
    """Put calibrated moves of an attribute into the file, beside those that it has.

    A move that hit more in an earlier calibration stays the default.
    """
    calibration = {**file.info.get("calibration", {})}
    earlier = {s: float(h) for r in calibration.get(attribute, {}).values() for s, h in r.get("hits", {}).items() if s not in made}
    moves_of = {**file.sources().get(attribute, {}), **made}
    before = max((s for s in earlier if s in moves_of), key=earlier.get, default=None)
    if before is not None and earlier[before] > record["hits"][best] + 0.005:
        best = before
    calibration[attribute] = {**calibration.get(attribute, {}), STAGE: record}
    chosen = moves_of.pop(best)
    info = {**file.info, "calibration": calibration}
    curve = file.info.get("accuracy_by_log_snr", {}).get(attribute)
    if curve:
        low, high = (min(max(v, curve[0][0]), curve[-1][0]) for v in chosen.window)
        info["accuracy_mid"] = {**file.info.get("accuracy_mid", {}), attribute: round(float(along(curve, [(low + high) / 2])), 4)}
    moves, others = {**file.moves, attribute: chosen}, {**file.alternatives, attribute: moves_of}
    return replace(file, moves=moves, alternatives=others, info=info)


def band_sizes(move: Move) -> list[float]:
    """Return the largest signed size at high, middle and low noise.

    0 if a band has no level.
    """
    band = torch.bucketize(move.knots, torch.tensor(BANDS, dtype=move.knots.dtype))
    largest = []
    for i in range(3):
        sizes = move.sizes[band == i].flatten()
        largest.append(round(float(sizes[sizes.abs().argmax()]), 4) if len(sizes) else 0.0)
    return largest


def trials_needed(moves: Mapping[str, Sequence[Move]]) -> int:
    """Return the largest number of trials of a calibration, with the plain images."""
    each = {a: sum(TRIALS_LEARNED if m.source in FITTED else TRIALS_EACH for m in ms) for a, ms in moves.items()}
    return 1 + sum(n + len(STRENGTHS) for n in each.values())


def _lines(attribute: str, file: AdpFile, record: Mapping[str, Any], best: str) -> list[str]:
    hits, drift, unsure, quality = (record[k] for k in ("hits", "drift", "unsure", "quality"))
    by_class = ", ".join(f"{c} {h:.0%}" for c, h in zip(file.attributes[attribute], record["by_class"][best], strict=True))
    sizes = ", ".join(f"{s:g}" for s in record["sizes"][best])
    low, high = record["window"][best]
    lines = [
        f"{attribute}: with '{best}', {hits[best]:.1%} of {record['images']} images show their class ({by_class})",
        f"  sizes at high, middle and low noise: {sizes}, in norms of h; log-SNR {low:.1f} to {high:.1f}",
        f"  drift of other attributes: {drift[best]:.3f}; unsure: {unsure[best]:.1%} (plain images: {record['unsure_plain']:.1%})",
        f"  {quality['text']}",
    ]
    others = [f"'{s}' {h:.1%}" for s, h in hits.items() if s != best]
    if others:
        lines.append(f"  also tried: {', '.join(others)}")
    if file.moves[attribute].source != best:
        lines.append(f"  '{file.moves[attribute].source}' hit more in an earlier calibration, so it stays the default")
    return lines


def _drift(readings: TrialReadings, attribute: str, plain: Mapping[str, Sequence[Sequence[float | None]]]) -> float:
    """Compare what goes along with an attribute's classes with plain images."""
    reference = {o: torch.tensor([[math.nan if v is None else v for v in row] for row in t], dtype=torch.float32) for o, t in plain.items()}
    sizes = {a: p.shape[1] for a, p in readings.read.items()}
    return composition_drift(composition(readings.classes(), attribute, sizes), reference)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers(table: Tensor) -> list[list[float | None]]:
    """Turn a table into numbers for JSON, with None for NaN."""
    return [[round(v, 5) if math.isfinite(v) else None for v in row] for row in table.tolist()]
