"""Calibrate profiles of bias features by trials: how far each class's features must be turned, and how far they may be.

For every class, all images of a trial are sent to it. Bisection finds the smallest gain at which the wanted share of them shows the class.
A profile that was read off features first gets signed sizes by bands of noise levels, as directions do (:mod:`...guidance.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...models.bias_features import LEARNED, BiasFeatures, Profile
from ..core.targets import make_target
from ..core.trials import TrialComparison, TrialResult, Trials, composition, composition_drift, reachable, rounded_windows
from ..guidance.calibration import calibrate_direction
from .extend_features import with_profile
from .run import SteerSettings, everyone

LOW, HIGH, HALVINGS = 0.25, 4.0, 3
"""Gains between which the strength is searched, and how often the interval is halved (on a logarithmic scale)."""
WANTED_SHARE = 0.97
"""Share of the images sent to a class that must show it."""
DIFFERENCE_SIZES, DIFFERENCE_SHARE = (1.0, 3.0, 10.0, 30.0), 0.985
"""Sizes of class differences in the middle band, and hits that end the search."""

DOUBTS = (1.0, 2.0)
"""Doubts of readings to compare. On the shipped unconditional model, eyeglasses 50%, 98.0% of 512 images get their class at 1 and 99.4% at
2: at 1, half of the few that were to have none, were read so and had some kept them at any strength. For hair it is 98.8% and 98.6%, with
more drift."""

ProfileTrials = Trials[BiasFeatures, SteerSettings]


@dataclass(frozen=True)
class CalibratedProfiles:
    """Profiles of one attribute after their calibration."""

    file: BiasFeatures
    """Bias features with the calibrated profiles, the best of them as default."""
    lines: list[str]
    """Report."""
    record: dict[str, Any]
    """What the file's info says of the calibration."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Trials of the best profile with all images sent to one class: its ``class``, the largest ``size`` of the edit, ``share``."""


class ProfileBench:
    """Calibrates the profiles of one attribute.

    ``wanted_share``: share of the images sent to a class that must show it. ``doubts``: doubts of readings to compare.
    """

    def __init__(
        self,
        file: BiasFeatures,
        attribute: str,
        trials: ProfileTrials,
        wanted_share: float = WANTED_SHARE,
        doubts: Sequence[float] = DOUBTS,
    ) -> None:
        self.file, self.attribute, self.trials = file, attribute, trials
        self.wanted_share, self.doubts = reachable(wanted_share, trials.images), tuple(doubts)
        self.classes = file.attribute(attribute).classes
        self.known = {a: f.classes for a, f in file.attributes.items()}
        self._tried: dict[str, dict[str, Any]] = {}

    # -- trials ----------------------------------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """Return the classes and the unsure share of plain images, by attribute."""
        log = self.trials.log
        # The log may be of a calibration of other attributes, whose plain images were not judged for this one.
        if self.attribute not in log.trials.get("plain", {}).get("read", {}):
            readings = self.trials.sample(None, None)
            log.keep("plain", {"read": {a: c.tolist() for a, c in readings.classes().items()}, "unsure": readings.unsure()})
        return log.trials["plain"]

    def towards(self, profile: Profile, k: int, strength: float = 1.0) -> dict[str, float]:
        """Send all images to class k.

        Return the ``share`` that shows it, ``unsure``, and ``drift`` from plain images of it.
        """
        key = self._key(profile, f"all {k} {strength:g}")
        self._tried[key] = self.trials.log.record(key, lambda: self._sample_towards(profile, k, strength))
        return self._tried[key]

    def _sample_towards(self, profile: Profile, k: int, strength: float) -> dict[str, Any]:
        plain = self.plain()
        settings = SteerSettings(everyone(self.known, self.attribute, self.classes[k]), strength=strength)
        readings = self.trials.sample(self._with(profile), settings)
        shown = readings.classes()
        share = float((shown[self.attribute] == k).float().mean())
        self.trials.say(f"{profile.source}, all to '{self.classes[k]}' at {strength:g}: {share:.1%}")
        return {
            "source": profile.source,
            "class": self.classes[k],
            "strength": strength,
            "size": round(float(profile.sizes[:, k].abs().max()) * strength, 4),
            "share": round(share, 4),
            "unsure": readings.unsure()[self.attribute],
            "drift": self._drift(shown, plain, k),
        }

    def quotas(self, profile: Profile) -> TrialResult:
        """Try a profile under a uniform target; return the hits by class and the drift."""
        record = self.trials.log.record(self._key(profile, "quotas"), lambda: self._sample_quotas(profile))
        return TrialResult(torch.tensor(record["hits"]), record["drift"])

    def _sample_quotas(self, profile: Profile) -> dict[str, Any]:
        plain = self.plain()
        target = make_target({self.attribute: dict.fromkeys(self.classes, 1 / len(self.classes))})
        readings = self.trials.sample(self._with(profile), SteerSettings(target))
        shown = readings.classes()
        return {
            "source": profile.source,
            "hits": [round(h, 4) for h in readings.hits(self.attribute, len(self.classes))],
            "drift": max(self._drift(shown, plain, k) for k in range(len(self.classes))),
            "unsure": readings.unsure()[self.attribute],
        }

    def _key(self, profile: Profile, what: str) -> str:
        doubt = "" if profile.doubt == 1 else f" doubt {profile.doubt:g}"
        return profile.digest(f"{self.attribute} {profile.source} {profile.assign} {what}{doubt}")

    def _with(self, profile: Profile) -> BiasFeatures:
        return with_profile(self.file, self.attribute, profile, default=True)

    def _drift(self, shown: dict[str, Tensor], plain: dict[str, Any], k: int) -> float:
        """Compare other attributes of class k's images with plain images of class k."""
        sizes = {a: len(self.known[a]) for a in shown if a in self.known and a in plain["read"]}
        now = composition({a: shown[a] for a in sizes}, self.attribute, sizes)
        before = composition({a: torch.tensor(plain["read"][a]) for a in sizes}, self.attribute, sizes)
        return round(composition_drift({a: t[k : k + 1] for a, t in now.items()}, {a: t[k : k + 1] for a, t in before.items()}), 4)

    # -- one profile -----------------------------------------------------------------------------------------------------------------

    def strength_of(self, profile: Profile, k: int) -> float:
        """Find the smallest gain at which the wanted share of images shows class k.

        If no gain reaches it, the smallest that brings as many, within a standard error: more force would cost quality for what may be
        chance.
        """

        def share(gain: float) -> float:
            return self.towards(profile.with_gain(k, gain), k)["share"]

        tried = {1.0: share(1.0)}
        if tried[1.0] >= self.wanted_share:
            low, high = LOW, 1.0
        else:
            low, high = 1.0, 2.0
            tried[high] = share(high)
            while tried[high] < self.wanted_share:
                low, high = high, high * 2
                if high > HIGH:
                    most = max(tried.values())
                    error = math.sqrt(most * (1 - most) / self.trials.images)
                    return min(g for g, reached in tried.items() if reached >= most - error)
                tried[high] = share(high)
        for _ in range(HALVINGS):
            middle = (low * high) ** 0.5
            tried[middle] = share(middle)
            low, high = (low, middle) if tried[middle] >= self.wanted_share else (middle, high)
        return high

    def calibrate_one(self, profile: Profile) -> Profile:
        """Find the sizes of a profile by class.

        If it depends on the reading, at the doubt that serves better.

        If it depends on the reading, at the doubt that serves better.
        """
        if profile.source != LEARNED:
            profile, _, _ = calibrate_direction(profile, self.quotas, self.trials.say, DIFFERENCE_SIZES, DIFFERENCE_SHARE)
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
        """Rank by the share that shows its class, then by how little else changes."""
        return round(sum(x["share"] for x in trials) / len(trials), 2), -sum(x["drift"] for x in trials)

    def calibrate(self, note: dict[str, Any] | None = None) -> CalibratedProfiles:
        """Calibrate all profiles, choose the one that reaches most, and find where its quality ends.

        ``note``: added to the record.
        """
        attribute = self.file.attribute(self.attribute)
        made = {source: self.calibrate_one(p) for source, p in attribute.profiles.items()}
        results = {s: self._at_one(p) for s, p in made.items()}
        best = max(made, key=lambda source: self._worth(results[source]))
        quality = self._quality(made[best], results[best])
        record = {
            "share": {s: [x["share"] for x in r] for s, r in results.items()},
            "unsure": {s: [x["unsure"] for x in r] for s, r in results.items()},
            "drift": {s: [x["drift"] for x in r] for s, r in results.items()},
            "unsure_plain": self.plain()["unsure"][self.attribute],
            "doubt": {s: p.doubt for s, p in made.items()},
            "window": rounded_windows({s: p.window for s, p in made.items()}),
            "images": self.trials.images,
            "enough": self.wanted_share,
            "quality": quality,
            **(note or {}),
        }
        file = self.file
        for source, p in made.items():
            file = with_profile(file, self.attribute, p, default=source == best)
        info = {**file.info, "calibration": {**file.info.get("calibration", {}), self.attribute: record}}
        tried = [t for t in self._tried.values() if t["source"] == best and "size" in t]
        return CalibratedProfiles(replace(file, info=info), self._lines(record, best), record, tried)

    def _quality(self, profile: Profile, at_one: list[dict[str, float]]) -> dict[str, Any]:
        plain = self.plain()["unsure"][self.attribute]

        def compared(strength: float) -> Iterator[TrialComparison]:
            for k, name in enumerate(self.classes):
                r = self.towards(profile, k, strength)
                yield TrialComparison(r["unsure"], max(plain, at_one[k]["unsure"]), r["drift"], at_one[k]["drift"], name)

        return self.trials.quality(compared)

    def _lines(self, record: dict[str, Any], best: str) -> list[str]:
        shares = ", ".join(f"{c} {v:.0%}" for c, v in zip(self.classes, record["share"][best], strict=True))
        low, high = record["window"][best]
        lines = [
            f"{self.attribute}: with '{best}' at strength 1, of {record['images']} images sent to each class these show it: {shares}",
            f"  log-SNR {low:.1f} to {high:.1f}; drift of other attributes: up to {max(record['drift'][best]):.3f}",
            f"  {record['quality']['text']}",
        ]
        others = [f"'{s}' {sum(r) / len(r):.1%}" for s, r in record["share"].items() if s != best]
        return lines + ([f"  also tried: {', '.join(others)}"] if others else [])
