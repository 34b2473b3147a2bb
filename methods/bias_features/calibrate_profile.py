"""Calibrate profiles of bias features by trials: how far each class's features have to be turned, and how far they may.

For every class, images that are all sent to it: the smallest gain at which ``enough`` of them are read as that class at the end, by
bisection. A profile that was read off features is first given signed sizes by bands of noise levels, as directions are
(:mod:`.calibration`). Every trial is written down as it ends, and not run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...metrics.fairness import UNSURE_BELOW
from ...models.bias_features import LEARNED, BiasFeatures, Profile
from ..core.targets import make_target
from ..guidance.calibrate import RISE, STRENGTHS, Seen, TrialLog, reachable
from ..guidance.calibration import TrialResult, calibrate_direction, composition, composition_drift
from .extend_features import with_profile
from .run import SteerSettings, everyone

LOW, HIGH, HALVINGS = 0.25, 4.0, 3
"""Gains between which the strength is sought, and how often the interval is halved (on a logarithmic scale)."""
DIFFERENCE_SIZES, DIFFERENCE_ENOUGH = (1.0, 3.0, 10.0, 30.0), 0.985
"""Sizes of class differences in the middle band, and hits that leave nothing to look for."""

DOUBTS = (1.0, 2.0)
"""Of readings. On the shipped unconditional model, eyeglasses 50%, 98.0% of 512 images get their class at 1 and 99.4% at 2: at 1, half of
the few that were to have none, were read so and had some kept them at any strength. For hair it is 98.8% and 98.6%, with more drift."""

Sample = Callable[[BiasFeatures | None, SteerSettings | None], Seen]
"""sample(file with the profile, settings) -> what was seen; (None, None) for plain images. The same noise at every call."""


@dataclass(frozen=True)
class CalibratedProfiles:
    """``file``: with calibrated profiles and the best as default; ``lines``: the report; ``record``: what is kept in the file's info;
    ``trials``: those of the best profile with all images sent to one class: its ``class``, the largest ``size`` of the edit, ``share``."""

    file: BiasFeatures
    lines: list[str]
    record: dict[str, Any]
    trials: list[dict[str, Any]] = field(default_factory=list)


class ProfileBench:
    """Trials of one attribute's profiles. ``images``: how many ``sample`` makes at a time."""

    def __init__(
        self,
        file: BiasFeatures,
        attribute: str,
        sample: Sample,
        images: int,
        log: TrialLog,
        enough: float = 0.97,
        say: Callable[[str], None] | None = None,
        doubts: Sequence[float] = DOUBTS,
    ) -> None:
        self.file, self.attribute, self._sample, self.images, self.log = file, attribute, sample, images, log
        self.enough, self.doubts = reachable(enough, images), tuple(doubts)
        self.classes = file.attribute(attribute).classes
        self.known = {a: f.classes for a, f in file.attributes.items()}
        self._say = say or (lambda text: None)
        self._tried: dict[str, dict[str, Any]] = {}

    # -- trials ----------------------------------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """Plain images: unsure share, shares of the classes, and what goes along with each."""
        # The log may be of a calibration of other attributes, whose plain images were not judged for this one.
        if self.attribute not in self.log.trials.get("plain", {}).get("read", {}):
            read = self._sample(None, None).read
            self.log.keep("plain", {"read": {a: p.argmax(-1).tolist() for a, p in read.items()}, "unsure": _unsure(read)})
        return self.log.trials["plain"]

    def towards(self, profile: Profile, k: int, strength: float = 1.0) -> dict[str, float]:
        """All images sent to class k: ``share`` read as it, ``unsure``, and ``drift`` of the other attributes from plain images of it."""
        key = _key(self.attribute, profile, f"all {k} {strength:g}")
        if key not in self.log.trials:
            plain = self.plain()
            settings = SteerSettings(everyone(self.known, self.attribute, self.classes[k]), strength=strength)
            seen = self._sample(self._with(profile), settings)
            hard = {a: p.argmax(-1) for a, p in seen.read.items()}
            share = float((hard[self.attribute] == k).float().mean())
            figures = {"share": round(share, 4), "unsure": _unsure(seen.read)[self.attribute], "drift": self._drift(hard, plain, k)}
            size = round(float(profile.sizes[:, k].abs().max()) * strength, 4)
            self.log.keep(key, {"source": profile.source, "class": self.classes[k], "strength": strength, "size": size, **figures})
            self._say(f"{profile.source}, all to '{self.classes[k]}' at {strength:g}: {share:.1%}")
        self._tried[key] = self.log.trials[key]
        return self.log.trials[key]

    def quotas(self, profile: Profile) -> TrialResult:
        """A uniform target: hits by class and drift."""
        key = _key(self.attribute, profile, "quotas")
        if key not in self.log.trials:
            plain = self.plain()
            target = make_target({self.attribute: dict.fromkeys(self.classes, 1 / len(self.classes))})
            seen = self._sample(self._with(profile), SteerSettings(target))
            hard = {a: p.argmax(-1) for a, p in seen.read.items()}
            cells = torch.full((len(hard[self.attribute]),), -1) if seen.cells is None else seen.cells
            hits = [_share(hard[self.attribute][cells == k] == k) for k in range(len(self.classes))]
            drift = max(self._drift(hard, plain, k) for k in range(len(self.classes)))
            unsure = _unsure(seen.read)[self.attribute]
            self.log.keep(key, {"source": profile.source, "hits": [round(h, 4) for h in hits], "drift": drift, "unsure": unsure})
        r = self.log.trials[key]
        return TrialResult(torch.tensor(r["hits"]), r["drift"])

    def _with(self, profile: Profile) -> BiasFeatures:
        return with_profile(self.file, self.attribute, profile, default=True)

    def _drift(self, hard: dict[str, Tensor], plain: dict[str, Any], k: int) -> float:
        """Of class k's images among these, mean total variation distance of the other attributes' shares from those of plain images."""
        sizes = {a: len(self.known[a]) for a in hard if a in self.known and a in plain["read"]}
        now = composition({a: hard[a] for a in sizes}, self.attribute, sizes)
        before = composition({a: torch.tensor(plain["read"][a]) for a in sizes}, self.attribute, sizes)
        return round(composition_drift({a: t[k : k + 1] for a, t in now.items()}, {a: t[k : k + 1] for a, t in before.items()}), 4)

    # -- one profile -----------------------------------------------------------------------------------------------------------------

    def strength_of(self, profile: Profile, k: int) -> float:
        """The smallest gain at which ``enough`` images are read as class k; where none is, the smallest that brings as many, within a
        standard error: more force would cost quality for what may be chance."""

        def share(gain: float) -> float:
            return self.towards(profile.with_gain(k, gain), k)["share"]

        tried = {1.0: share(1.0)}
        if tried[1.0] >= self.enough:
            low, high = LOW, 1.0
        else:
            low, high = 1.0, 2.0
            while (tried.setdefault(high, share(high))) < self.enough:
                low, high = high, high * 2
                if high > HIGH:
                    most = max(tried.values())
                    error = math.sqrt(most * (1 - most) / self.images)
                    return min(g for g, reached in tried.items() if reached >= most - error)
        for _ in range(HALVINGS):
            middle = (low * high) ** 0.5
            tried[middle] = share(middle)
            low, high = (low, middle) if tried[middle] >= self.enough else (middle, high)
        return high

    def calibrate_one(self, profile: Profile) -> Profile:
        """Sizes by class; for a profile that depends on the reading, at the doubt that serves better."""
        if profile.source != LEARNED:
            profile, _, _ = calibrate_direction(profile, self.quotas, self._say, DIFFERENCE_SIZES, DIFFERENCE_ENOUGH)
        doubts = self.doubts if profile.by_reading else (profile.doubt,)
        return max((self._sized(replace(profile, doubt=d)) for d in doubts), key=lambda p: self._worth(self._at_one(p)))

    def _sized(self, profile: Profile) -> Profile:
        gains = [self.strength_of(profile, k) for k in range(len(self.classes))]
        for k, gain in enumerate(gains):
            profile = profile.with_gain(k, gain)
        return profile

    def _at_one(self, profile: Profile) -> list[dict[str, float]]:
        return [self.towards(profile, k) for k in range(len(self.classes))]

    @staticmethod
    def _worth(trials: list[dict[str, float]]) -> tuple[float, float]:
        """Images read as their class, to the percent, then how little goes along with it."""
        return round(sum(x["share"] for x in trials) / len(trials), 2), -sum(x["drift"] for x in trials)

    def calibrate(self, images_note: dict[str, Any] | None = None) -> CalibratedProfiles:
        """Calibrate all profiles of the attribute, choose the one that reaches most, and find where its quality ends."""
        found = self.file.attribute(self.attribute)
        made = {source: self.calibrate_one(p) for source, p in found.profiles.items()}
        results = {s: self._at_one(p) for s, p in made.items()}
        best = max(made, key=lambda source: self._worth(results[source]))
        quality = self._quality(made[best], results[best])
        record = {
            "share": {s: [x["share"] for x in r] for s, r in results.items()},
            "unsure": {s: [x["unsure"] for x in r] for s, r in results.items()},
            "drift": {s: [x["drift"] for x in r] for s, r in results.items()},
            "unsure_plain": self.plain()["unsure"][self.attribute],
            "doubt": {s: p.doubt for s, p in made.items()},
            "window": {s: [round(v, 3) for v in p.window] for s, p in made.items()},
            "images": self.images,
            "enough": self.enough,
            "quality": quality,
            **(images_note or {}),
        }
        file = self.file
        for source, p in made.items():
            file = with_profile(file, self.attribute, p, default=source == best)
        info = {**file.info, "calibration": {**file.info.get("calibration", {}), self.attribute: record}}
        tried = [t for t in self._tried.values() if t["source"] == best and "size" in t]
        return CalibratedProfiles(replace(file, info=info), self._lines(record, best), record, tried)

    def _quality(self, profile: Profile, at_one: list[dict[str, float]]) -> dict[str, Any]:
        plain = self.plain()["unsure"][self.attribute]
        limit = 1.0
        for strength in STRENGTHS:
            for k in range(len(self.classes)):
                r = self.towards(profile, k, strength)
                rise = r["unsure"] - max(plain, at_one[k]["unsure"])
                doubtful = rise > RISE and rise * self.images > 1.5
                if doubtful or r["drift"] - at_one[k]["drift"] > RISE:
                    rises = f"drift rises from {at_one[k]['drift']:.3f} to {r['drift']:.3f}"
                    what = f"{r['unsure']:.1%} are read with doubt" if doubtful else rises
                    text = f"quality holds up to strength {limit:g}; at {strength:g} towards '{self.classes[k]}' {what}"
                    return {"limit": limit, "text": text}
            limit = strength
        return {"limit": limit, "text": f"quality holds up to strength {limit:g}; no higher one was tried"}

    def _lines(self, record: dict[str, Any], best: str) -> list[str]:
        shares = ", ".join(f"{c} {v:.0%}" for c, v in zip(self.classes, record["share"][best], strict=True))
        low, high = record["window"][best]
        lines = [
            f"{self.attribute}: '{best}' at strength 1 makes of {self.images} images: {shares}",
            f"  log-SNR {low:.1f} to {high:.1f}; drift of other attributes up to {max(record['drift'][best]):.3f}",
            f"  {record['quality']['text']}",
        ]
        others = [f"'{s}' {sum(r) / len(r):.1%}" for s, r in record["share"].items() if s != best]
        return lines + ([f"  also tried: {', '.join(others)}"] if others else [])


def _key(attribute: str, profile: Profile, what: str) -> str:
    doubt = "" if profile.doubt == 1 else f" doubt {profile.doubt:g}"
    return profile.digest(f"{attribute} {profile.source} {profile.assign} {what}{doubt}")


def _unsure(read: dict[str, Tensor]) -> dict[str, float]:
    return {a: round(_share(p.amax(-1) < UNSURE_BELOW), 4) for a, p in read.items()}


def _share(of: Tensor) -> float:
    return float(of.float().mean()) if len(of) else 0.0
