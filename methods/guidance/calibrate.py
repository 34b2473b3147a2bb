"""Calibrate an ADP's moves by trials: what every bench, with a host or without, has in common.

A bench samples images (plain ones, or under a uniform target with a move) and says what is seen in them. Directions read off a feature
set get signed sizes by bands of noise levels (:func:`.calibration.calibrate_direction`); the one that hits most without making more
images doubtful is used by default, the others are kept. Every trial is written down as it ends, and not run again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...metrics.fairness import UNSURE_BELOW
from ...models.adp import AdpFile, Move
from ...models.files import DAMAGE, write_text
from ...models.sites import MIDDLE
from ..adp.figures import along
from ..core.targets import make_target
from ..data.feature_set import FeatureSet
from ..labels.labels import LabelSet, for_entries
from .calibration import BANDS, Say, Trial, TrialResult, calibrate, calibrate_direction, composition, composition_drift
from .direction_rows import chosen_images, direction_levels, rows_at
from .directions import KINDS, direction_move
from .run import FITTED, GuidanceSettings

STAGE = "compare_directions"
RISE = 0.03
"""What may be added to the unsure share of plain images, and to the drift of the calibrated size, before quality is said to fall."""
STRENGTHS = (1.25, 1.6, 2.0)
MIDDLE_SIZES, ENOUGH = (0.15, 0.4, 0.8, 1.6, 3.2), 0.985
"""Sizes in the middle band, in norms of h (what a model needs differs by more than ten times), and hits that leave nothing to look for."""
MARGIN = 1.5
"""Times the smallest gain of a learned move that is enough in a trial, a choice: a few dozen images cannot tell 93% from 99%, and 1.6 times
the size that was enough raised the drift of other attributes by 0.01 only. It does not mend a predictor that was made from few images: of a
file made from 1,000, sizes 1.1, 1.5 and 2.2 times the one that was enough for 96 of 96 images all brought 94 to 97% to their class."""
TRIALS_EACH, TRIALS_LEARNED = 9, 24
"""Trials of one direction, as calibrate_direction and, for a learned move, calibrate make them at most."""


@dataclass(frozen=True)
class Seen:
    """Images of one trial. ``read``: attribute -> class probabilities [N, K], by whoever judges; ``cells``: the class that each was
    assigned, int64 [N] (None for plain images)."""

    read: dict[str, Tensor]
    cells: Tensor | None = None


Sample = Callable[[AdpFile | None, GuidanceSettings | None], Seen]
"""sample(file with the move, settings) -> what was seen; (None, None) for plain images. The same noise at every call."""


@dataclass
class TrialLog:
    """Trials that were made, by a key of the move, in a JSON file (None: nowhere). ``settings``: what they depend on; those in the file
    that were made with others are not used."""

    path: Path | None
    settings: Mapping[str, Any]
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    stale: bool = False

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
        self.trials[key] = record
        if self.path is not None:
            write_text(self.path, json.dumps({"settings": self.settings, "trials": self.trials}, indent=1))


@dataclass(frozen=True)
class Calibrated:
    """``file``: with the moves; ``lines``: the report; ``trials``: attribute -> what was tried, in order."""

    file: AdpFile
    lines: list[str]
    trials: dict[str, list[dict[str, Any]]]
    plain_unsure: dict[str, float]


class Bench:
    """Trials of one ADP file. ``images``: how many ``sample`` makes at a time; ``seed``: of who is assigned what."""

    def __init__(self, adp: AdpFile, sample: Sample, images: int, seed: int, log: TrialLog, say: Say | None = None) -> None:
        self.adp, self._sample, self.images, self.seed, self.log = adp, sample, images, seed, log
        self._say = say or (lambda text: None)
        self._plain: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Unsure share of plain images by attribute, and what goes along with every class in them."""
        if self._plain is None:
            if "plain" not in self.log.trials:
                read = self._sample(None, None).read
                sizes, hard = {a: p.shape[1] for a, p in read.items()}, {a: p.argmax(-1) for a, p in read.items()}
                record = {
                    "unsure": {a: _unsure(p) for a, p in read.items()},
                    "composition": {a: {o: _numbers(t) for o, t in composition(hard, a, sizes).items()} for a in sizes},
                }
                self._say("plain images: read with doubt " + ", ".join(f"{a} {u:.1%}" for a, u in record["unsure"].items()))
                self.log.keep("plain", record)
            self._plain = self.log.trials["plain"]
        return self._plain

    def trial(self, attribute: str, strength: float = 1.0) -> Trial:
        """A trial of one attribute's move, under a uniform target."""
        return lambda move: TrialResult(torch.tensor((r := self.record(attribute, move, strength))["hits"]), r["drift"])

    def record(self, attribute: str, move: Move, strength: float = 1.0) -> dict[str, Any]:
        """What a trial found, from the log where it was made before."""
        key = _key(attribute, move, strength)
        if key not in self.log.trials:
            plain = self.plain()
            classes = self.adp.attributes[attribute]
            target = make_target({attribute: dict.fromkeys(classes, 1 / len(classes))})
            trial_file = replace(self.adp, moves={attribute: move}, alternatives={}, info={})
            seen = self._sample(trial_file, GuidanceSettings(target, seed=self.seed, strength=strength))
            hard = {a: p.argmax(-1) for a, p in seen.read.items()}
            cells = torch.full((len(hard[attribute]),), -1) if seen.cells is None else seen.cells
            hits = [_share(hard[attribute][cells == k] == k) for k in range(len(classes))]
            sizes = {a: p.shape[1] for a, p in seen.read.items()}
            reference = {o: torch.tensor(t, dtype=torch.float32) for o, t in _nans(plain["composition"][attribute]).items()}
            drift = composition_drift(composition(hard, attribute, sizes), reference)
            named = {"attribute": attribute, "source": move.source, "site": move.site, "sizes": band_sizes(move), "assign": move.assign}
            figures = {"hits": [round(h, 4) for h in hits], "drift": round(drift, 4), "unsure": _unsure(seen.read[attribute])}
            self.log.keep(key, {**named, "strength": strength, **figures})
        return self.log.trials[key]

    def calibrate(self, attribute: str, candidates: Sequence[Move]) -> Calibrated:
        """Calibrate these moves of an attribute, choose the best, and find where its quality ends."""
        done: dict[str, tuple[Move, dict[str, Any]]] = {}
        for move in candidates:
            trial = self.trial(attribute)
            if move.source in FITTED:
                enough = reachable(ENOUGH, self.images // len(self.adp.attributes[attribute]))
                made, _ = calibrate(move, trial, enough, MARGIN, self._say)
            else:
                made, _, _ = calibrate_direction(move, trial, self._say, MIDDLE_SIZES, ENOUGH)
            done[made.source] = made, self.record(attribute, made)
        plain = self.plain()["unsure"][attribute]

        def worth(source: str) -> tuple[bool, float, float]:
            r = done[source][1]
            return not self._rises(r["unsure"], plain), round(_mean(r["hits"]), 2), -r["drift"]

        best = max(done, key=worth)
        quality = self._quality(attribute, *done[best])
        record = {
            "hits": {s: round(_mean(r["hits"]), 4) for s, (_, r) in done.items()},
            "by_class": {s: r["hits"] for s, (_, r) in done.items()},
            "drift": {s: r["drift"] for s, (_, r) in done.items()},
            "unsure": {s: r["unsure"] for s, (_, r) in done.items()},
            "unsure_plain": plain,
            "sizes": {s: r["sizes"] for s, (_, r) in done.items()},
            "bands": list(BANDS),
            "window": {s: [round(v, 3) for v in m.window] for s, (m, _) in done.items()},
            "images": self.images,
            "quality": quality,
            **{k: v for k, v in self.log.settings.items() if k in ("judge", "sampler", "features")},
        }
        file = with_moves(self.adp, attribute, {s: m for s, (m, _) in done.items()}, best, record)
        tried = [t for t in self.log.trials.values() if t.get("attribute") == attribute and t["source"] in done]
        shown = [{**t, "chosen": done[t["source"]][1] is t, "best": done[best][1] is t} for t in tried]
        return Calibrated(file, _lines(attribute, file, record, best), {attribute: shown}, {attribute: plain})

    def _rises(self, unsure: float, plain: float) -> bool:
        """More than 3 points above plain images, and at least two images more: one more is chance."""
        return unsure - plain > RISE and (unsure - plain) * self.images > 1.5

    def _quality(self, attribute: str, move: Move, at_one: dict[str, Any]) -> dict[str, Any]:
        """How far the strength can be raised before more images are doubtful, or what goes along with a class drifts further."""
        plain = self.plain()["unsure"][attribute]
        if self._rises(at_one["unsure"], plain):
            text = f"quality: at strength 1, {at_one['unsure']:.1%} of the images are read with doubt ({plain:.1%} of plain ones): use less"
            return {"limit": None, "text": text}
        limit, why = 1.0, ""
        for strength in STRENGTHS:
            r = self.record(attribute, move, strength)
            if self._rises(r["unsure"], plain):
                why = f"at {strength:g}, {r['unsure']:.1%} of the images are read with doubt ({plain:.1%} of plain ones)"
            elif r["drift"] - at_one["drift"] > RISE:
                why = f"at {strength:g}, the drift of other attributes rises from {at_one['drift']:.3f} to {r['drift']:.3f}"
            if why:
                break
            limit = strength
        return {"limit": limit, "text": f"quality holds up to strength {limit:g}; {why or 'no higher one was tried'}"}


def reachable(share: float, images: int) -> float:
    """A share that a trial of so many images can tell from all of them: as many may miss as the share allows, rounded up.

    Asking 48 images for 98.5% asks for all 48, and one that never hits drives the search to its end: sizes of three times those that were
    enough, which then missed more images under another sampler (96.1% of 512; see docs/adp_samplers.md).
    """
    return 1 - math.ceil((1 - share) * images - 1e-9) / max(1, images)


def directions_of(features: FeatureSet, labels: LabelSet, attribute: str) -> list[Move]:
    """The three directions that can be read off a set for an attribute, at its site, uncalibrated."""
    p = for_entries(labels, features.entries, [attribute])[attribute]
    chosen = chosen_images(p)
    levels = direction_levels(features)
    rows = rows_at(features.folder, [features.entries[i] for i in chosen], levels)
    hard = p[chosen].argmax(-1)
    level = torch.tensor(levels).repeat(len(chosen))
    each = hard.repeat_interleave(len(levels))
    site = str(features.meta.get("site", MIDDLE))
    return [direction_move(kind, rows.flatten(0, 1), level, each, p.shape[1], site=site) for kind in KINDS]


def reading_levels(adp: AdpFile, low: float, high: float) -> dict[str, float]:
    """For every attribute that the ADP reads the log-SNR, between these, at which it does so best: where a finished image is read off the
    network."""
    levels = {}
    for attribute in adp.read:
        curve = adp.info.get("accuracy_by_log_snr", {}).get(attribute) or [[0.0, 0.0]]
        inside = [c for c in curve if low <= c[0] <= high] or [[min(max(0.0, low), high), 0.0]]
        top = max(v for _, v in inside)
        near = [at for at, v in inside if v >= top - 0.005]
        levels[attribute] = near[len(near) // 2]
    return levels


def with_moves(file: AdpFile, attribute: str, made: Mapping[str, Move], best: str, record: dict[str, Any]) -> AdpFile:
    """The file with calibrated moves of an attribute. What it held before is kept beside them, and stays the default where an earlier
    calibration saw it hit more."""
    calibration = {**file.info.get("calibration", {})}
    earlier = {s: float(h) for r in calibration.get(attribute, {}).values() for s, h in r.get("hits", {}).items() if s not in made}
    held = {**file.sources().get(attribute, {}), **made}
    before = max((s for s in earlier if s in held), key=earlier.get, default=None)
    if before is not None and earlier[before] > record["hits"][best] + 0.005:
        best = before
    calibration[attribute] = {**calibration.get(attribute, {}), STAGE: record}
    chosen = held.pop(best)
    info = {**file.info, "calibration": calibration}
    if curve := file.info.get("accuracy_by_log_snr", {}).get(attribute):
        low, high = (min(max(v, curve[0][0]), curve[-1][0]) for v in chosen.window)
        info["accuracy_mid"] = {**file.info.get("accuracy_mid", {}), attribute: round(float(along(curve, [(low + high) / 2])), 4)}
    moves, others = {**file.moves, attribute: chosen}, {**file.alternatives, attribute: held}
    return replace(file, moves=moves, alternatives=others, info=info)


def band_sizes(move: Move) -> list[float]:
    """Signed sizes at high, middle and low noise, the largest of each band's levels and classes; 0 where a band has no level."""
    band = torch.bucketize(move.knots, torch.tensor(BANDS, dtype=move.knots.dtype))
    found = []
    for i in range(3):
        sizes = move.sizes[band == i].flatten()
        found.append(round(float(sizes[sizes.abs().argmax()]), 4) if len(sizes) else 0.0)
    return found


def trials_needed(moves: Mapping[str, Sequence[Move]]) -> int:
    """How many trials a calibration of these candidates has at most, the plain images included."""
    each = {a: sum(TRIALS_LEARNED if m.source in FITTED else TRIALS_EACH for m in ms) for a, ms in moves.items()}
    return 1 + sum(n + len(STRENGTHS) for n in each.values())


def _lines(attribute: str, file: AdpFile, record: Mapping[str, Any], best: str) -> list[str]:
    hits, drift, unsure, quality = (record[k] for k in ("hits", "drift", "unsure", "quality"))
    by_class = ", ".join(f"{c} {h:.0%}" for c, h in zip(file.attributes[attribute], record["by_class"][best], strict=True))
    sizes = ", ".join(f"{s:g}" for s in record["sizes"][best])
    low, high = record["window"][best]
    lines = [
        f"{attribute}: '{best}' reaches {hits[best]:.1%} of {record['images']} images ({by_class})",
        f"  sizes at high, middle and low noise {sizes}, in norms of h; log-SNR {low:.1f} to {high:.1f}",
        f"  drift of other attributes {drift[best]:.3f}; unsure {unsure[best]:.1%} ({record['unsure_plain']:.1%} of plain images)",
        f"  {quality['text']}",
    ]
    others = [f"'{s}' {h:.1%}" for s, h in hits.items() if s != best]
    if others:
        lines.append(f"  also tried: {', '.join(others)}")
    if file.moves[attribute].source != best:
        lines.append(f"  '{file.moves[attribute].source}', calibrated before, hit more and stays the one used")
    return lines


def _key(attribute: str, move: Move, strength: float) -> str:
    return move.digest(f"{attribute} {move.source} {move.site} {move.assign} {strength:g}")


def _unsure(p: Tensor) -> float:
    return round(_share(p.amax(-1) < UNSURE_BELOW), 4)


def _share(of: Tensor) -> float:
    """Share that is true; 0 where there is nothing."""
    return float(of.float().mean()) if len(of) else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers(table: Tensor) -> list[list[float | None]]:
    return [[round(v, 5) if math.isfinite(v) else None for v in row] for row in table.tolist()]


def _nans(tables: Mapping[str, Sequence[Sequence[float | None]]]) -> dict[str, list[list[float]]]:
    return {o: [[math.nan if v is None else v for v in row] for row in t] for o, t in tables.items()}
