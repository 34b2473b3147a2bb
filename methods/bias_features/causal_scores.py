"""Measure causal scores: what the labels of finished images do when one feature alone is turned (:mod:`.turn_alone`).

causal[k, f] = share of the images that show class k with the feature turned up, minus the share with it turned down, from -1 to 1. All
trials start from the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...models.bias_features import BiasFeatures
from ..core.trials import TrialReadings, Trials, paired_change, trial_key
from .run import SteerSettings, everyone
from .turn_alone import AMOUNT, NOTHING, Turn, turned_file, turns_of

NAMED = 5
"""Largest number of features that a line names."""
SIDE_EFFECT = 0.05
"""Smallest change of another attribute's share that the report names."""

PER_CLASS = 8
"""Features of every class that are measured."""

Listen = Callable[[Sequence[Turn]], tuple[TrialReadings, Sequence[float | None]]]
"""Samples and reads plain images, and measures each feature's typical activation (None: never active)."""


@dataclass(frozen=True)
class CausalScores:
    """Causal scores of the shortlists."""

    file: BiasFeatures
    """Bias features with the scores."""
    lines: list[str]
    """Report."""


@dataclass(frozen=True)
class Pair:
    """The same images with one feature turned up, and turned down."""

    up: dict[str, list[int]]
    """Class of each image with the feature turned up, by attribute."""
    down: dict[str, list[int]]
    """Class of each image with the feature turned down, by attribute."""

    def change(self, attribute: str, classes: int) -> Tensor:
        """Compare the images with the feature up and down (:func:`paired_change`), float32 [K, N]."""
        return paired_change(self.up[attribute], self.down[attribute], classes)

    def side_effects(self, attribute: str) -> dict[str, float]:
        """Return for every other attribute the largest change of a class's share, without its sign."""
        others = {a: 1 + max(*read, *self.down[a]) for a, read in self.up.items() if a != attribute and a in self.down}
        return {a: round(float(self.change(a, k).mean(1).abs().max()), 4) for a, k in others.items()}


class CausalBench:
    """Measures the shortlists of some attributes.

    There are two trials for each feature, and one of plain images.

    ``per_class``: features of every class; ``amount``: typical activations that are added. Raises ValueError if features cannot be
    turned (:func:`.turn_alone.turns_of`).
    """

    def __init__(
        self,
        file: BiasFeatures,
        attributes: Sequence[str],
        trials: Trials[BiasFeatures, SteerSettings],
        per_class: int = PER_CLASS,
        amount: float = AMOUNT,
    ) -> None:
        self.file, self.attributes, self.trials, self.amount = file, list(attributes), trials, amount
        self.turns = {a: turns_of(a, file.attribute(a), per_class) for a in self.attributes}

    @property
    def all_turns(self) -> list[Turn]:
        """The turns of all attributes."""
        return [t for turns in self.turns.values() for t in turns]

    @property
    def pending(self) -> int:
        """Number of trials that are not in the log."""
        keys = {k for t in self.all_turns for k in (_up(t, self.amount), _down(t))}
        return (not self._listened) + sum(not self._read(k) for k in keys)

    def measure(self, listen: Listen, note: dict[str, Any] | None = None) -> CausalScores:
        """Sample what is not in the log, and put the scores into the file.

        ``note``: added to the record in its info.
        """
        log = self.trials.log
        if not self._listened:
            readings, typical = listen(self.all_turns)
            known = {t.key: v for t, v in zip(self.all_turns, typical, strict=True)}
            earlier = log.trials.get("listened", {})
            log.keep("listened", {"read": _class_lists(readings), "typical": {**earlier.get("typical", {}), **known}})
        file, done = self.file, 0
        for attribute, turns in self.turns.items():
            pairs = []
            for turn in turns:
                pairs.append(Pair(self._trial(turn, True), self._trial(turn, False)))
                done += 1
                self.trials.say(f"{done} of {len(self.all_turns)}: {attribute} #{turn.latent}")
            file = self._scored(file, attribute, turns, pairs, note or {})
        return CausalScores(file, [line for a in self.attributes for line in causal_lines(file, a)])

    @property
    def _listened(self) -> bool:
        """Whether the log has plain images and typical activations for all these turns."""
        record = self.trials.log.trials.get("listened", {})
        return set(self.attributes) <= set(record.get("read", {})) and {t.key for t in self.all_turns} <= set(record.get("typical", {}))

    def _read(self, key: str) -> bool:
        """Return whether a trial is in the log, read for all these attributes."""
        return set(self.attributes) <= set(self.trials.log.trials.get(key, {}).get("read", {}))

    def _trial(self, turn: Turn, up: bool) -> dict[str, list[int]]:
        """Return the classes of the images with a feature turned, by attribute."""
        key = _up(turn, self.amount) if up else _down(turn)
        if not self._read(key):
            added = self.amount * self._typical(turn) if up else NOTHING
            classes = {turn.attribute: self.file.attribute(turn.attribute).classes}
            settings = SteerSettings(everyone(classes, turn.attribute, classes[turn.attribute][0]))
            readings = self.trials.sample(turned_file(self.file, turn, added), settings)
            record = {"latent": turn.latent, "up" if up else "down": round(added, 4) if up else True}
            self.trials.log.keep(key, {**record, "read": _class_lists(readings)})
        return self.trials.log.trials[key]["read"]

    def _typical(self, turn: Turn) -> float:
        typical = self.trials.log.trials["listened"]["typical"][turn.key]
        return turn.surplus if typical is None else typical

    def _scored(self, file: BiasFeatures, attribute: str, turns: list[Turn], pairs: list[Pair], note: dict[str, Any]) -> BiasFeatures:
        features = file.attribute(attribute)
        k = len(features.classes)
        plain = torch.tensor(self.trials.log.trials["listened"]["read"][attribute])
        shares = [float((plain == c).float().mean()) for c in range(k)]
        causal, error = features.causal.clone(), torch.zeros(k, len(turns))
        for j, (turn, pair) in enumerate(zip(turns, pairs, strict=True)):
            change = pair.change(attribute, k)
            causal[:, turn.index] = change.mean(1)
            error[:, j] = change.std(1, correction=0) / math.sqrt(len(plain))
        record = {
            "features": [t.latent for t in turns],
            "error": [[round(v, 4) for v in row] for row in error.tolist()],
            "typical": [round(self._typical(t), 4) for t in turns],
            "beside": [pair.side_effects(attribute) for pair in pairs],
            "plain": [round(s, 4) for s in shares],
            "images": len(plain),
            "amount": self.amount,
            **note,
        }
        info = {**file.info, "causal": {**file.info.get("causal", {}), attribute: record}}
        return replace(file, attributes={**file.attributes, attribute: replace(features, causal=causal)}, info=info)


def _class_lists(readings: TrialReadings) -> dict[str, list[int]]:
    return {a: c.tolist() for a, c in readings.classes().items()}


def _up(turn: Turn, amount: float) -> str:
    return trial_key(f"up {turn.key} {amount:g} {turn.surplus:.4f}")


def _down(turn: Turn) -> str:
    return trial_key(f"down {turn.key}")


def causal_lines(file: BiasFeatures, attribute: str) -> list[str]:
    """List features by class in the order of their effect; empty if none were measured."""
    record = file.info.get("causal", {}).get(attribute)
    if record is None:
        return []
    features = file.attribute(attribute)
    index = {int(f): i for i, f in enumerate(features.features)}
    own = {f: int(features.scores[:, index[f]].argmax()) for f in record["features"]}
    effect = {f: float(features.causal[k, index[f]]) for f, k in own.items()}
    error = {f: record["error"][own[f]][j] for j, f in enumerate(record["features"])}
    plain = ", ".join(f"{c} {s:.0%}" for c, s in zip(features.classes, record["plain"], strict=True))
    lines = [
        f"{attribute}: {len(own)} features turned alone, up by {record['amount']:g} times their typical activation, and down to 0; "
        f"{record['images']} images per trial (plain images: {plain})"
    ]
    for k, name in enumerate(features.classes):
        mine = sorted((f for f in own if own[f] == k), key=lambda f: -effect[f])
        if mine:
            effects = [f"#{f} {100 * effect[f]:+.0f} +- {196 * error[f]:.0f}" for f in mine]
            lines.append(f"  '{name}', change of its share in points: {_named(effects)}")
    does, against = (sum(v > 0 for v in effect.values()), sum(v < 0 for v in effect.values()))
    neither = len(own) - does - against
    lines.append(f"  of {len(own)} features, {does} bring the class that they speak for, {against} take it away, {neither} do neither")
    most = {f: max(b.items(), key=lambda item: item[1], default=("", 0.0)) for f, b in zip(own, record["beside"], strict=True)}
    side = [f"#{f} {a} {100 * v:.0f}" for f, (a, v) in most.items() if v > max(SIDE_EFFECT, abs(effect[f]))]
    if side:
        lines.append(f"  {len(side)} change another attribute more than this one: {_named(side)}")
    return lines


def _named(items: list[str]) -> str:
    return ", ".join(items[:NAMED]) + (", ..." if len(items) > NAMED else "")
