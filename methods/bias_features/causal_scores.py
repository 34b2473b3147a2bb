"""Causal scores: what the labels of finished images do when a feature alone is turned (:mod:`.turn_alone`).

causal[k, f] = share of the images read as class k with the feature turned up, minus the share with it turned down, from -1 to 1; all
trials begin with the same noise. Every trial is written down as it ends, and not run again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...models.bias_features import BiasFeatures
from ..guidance.calibrate import Seen, TrialLog
from .causal_report import causal_lines
from .run import SteerSettings, everyone
from .turn_alone import AMOUNT, NOTHING, Turn, turned_file, turns_of

PER_CLASS = 8
"""Features of every class that are measured."""

Listen = Callable[[Sequence[Turn]], tuple[Seen, Sequence[float | None]]]
"""listen(turns) -> plain images as they are read, and each feature's typical activation (None: never active)."""
Sample = Callable[[BiasFeatures, SteerSettings], Seen]
"""sample(file, settings) -> images steered so, as they are read. The same noise at every call, and as for plain images."""


@dataclass(frozen=True)
class CausalScores:
    """``file``: with the causal scores of the shortlists; ``lines``: a report."""

    file: BiasFeatures
    lines: list[str]


@dataclass(frozen=True)
class Pair:
    """The same images with one feature turned up and turned down: attribute -> the class that each is read as."""

    up: dict[str, list[int]]
    down: dict[str, list[int]]

    def change(self, attribute: str, classes: int) -> Tensor:
        """Image by image: 1 where it is of class k when up alone, -1 where when down alone, else 0; float32 [K, N]."""
        every = torch.arange(classes)[:, None]
        return (torch.tensor(self.up[attribute]) == every).float() - (torch.tensor(self.down[attribute]) == every).float()

    def beside(self, attribute: str) -> dict[str, float]:
        """For every other attribute the largest change of a class's share, without its sign."""
        others = {a: 1 + max(*read, *self.down[a]) for a, read in self.up.items() if a != attribute and a in self.down}
        return {a: round(float(self.change(a, k).mean(1).abs().max()), 4) for a, k in others.items()}


class CausalBench:
    """Trials of the shortlists of some attributes: two for each feature, and plain images once.

    ``per_class``: features of every class; ``amount``: typical activations that are added. Raises ValueError where features cannot be
    turned (:func:`.turn_alone.turns_of`).
    """

    def __init__(
        self,
        file: BiasFeatures,
        attributes: Sequence[str],
        log: TrialLog,
        per_class: int = PER_CLASS,
        amount: float = AMOUNT,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.file, self.attributes, self.log, self.amount = file, list(attributes), log, amount
        self.turns = {a: turns_of(a, file.attribute(a), per_class) for a in self.attributes}
        self._say = say or (lambda text: None)

    @property
    def all_turns(self) -> list[Turn]:
        """Of all attributes."""
        return [t for turns in self.turns.values() for t in turns]

    @property
    def pending(self) -> int:
        """How many trials are not in the log."""
        keys = {k for t in self.all_turns for k in (_up(t, self.amount), _down(t))}
        return (not self._listened) + sum(not self._read(k) for k in keys)

    def measure(self, listen: Listen, sample: Sample, note: dict[str, Any] | None = None) -> CausalScores:
        """Run what is not in the log, and put the scores into the file; ``note`` is kept in its info with them."""
        if not self._listened:
            seen, typical = listen(self.all_turns)
            known = {t.key: v for t, v in zip(self.all_turns, typical, strict=True)}
            earlier = self.log.trials.get("listened", {})
            self.log.keep("listened", {"read": _hard(seen), "typical": {**earlier.get("typical", {}), **known}})
        file, done = self.file, 0
        for attribute, turns in self.turns.items():
            pairs = []
            for turn in turns:
                pairs.append(Pair(self._trial(turn, True, sample), self._trial(turn, False, sample)))
                done += 1
                self._say(f"{done} of {len(self.all_turns)}: {attribute} #{turn.latent}")
            file = self._scored(file, attribute, turns, pairs, note or {})
        return CausalScores(file, [line for a in self.attributes for line in causal_lines(file, a)])

    @property
    def _listened(self) -> bool:
        there = self.log.trials.get("listened", {})
        return set(self.attributes) <= set(there.get("read", {})) and {t.key for t in self.all_turns} <= set(there.get("typical", {}))

    def _read(self, key: str) -> bool:
        """Whether a trial is in the log, read for all these attributes."""
        return set(self.attributes) <= set(self.log.trials.get(key, {}).get("read", {}))

    def _trial(self, turn: Turn, up: bool, sample: Sample) -> dict[str, list[int]]:
        """Classes that the images are read as, by attribute."""
        key = _up(turn, self.amount) if up else _down(turn)
        if not self._read(key):
            added = self.amount * self._typical(turn) if up else NOTHING
            classes = {turn.attribute: self.file.attribute(turn.attribute).classes}
            settings = SteerSettings(everyone(classes, turn.attribute, classes[turn.attribute][0]))
            record = {"latent": turn.latent, "up" if up else "down": round(added, 4) if up else True}
            self.log.keep(key, {**record, "read": _hard(sample(turned_file(self.file, turn, added), settings))})
        return self.log.trials[key]["read"]

    def _typical(self, turn: Turn) -> float:
        typical = self.log.trials["listened"]["typical"][turn.key]
        return turn.surplus if typical is None else typical

    def _scored(self, file: BiasFeatures, attribute: str, turns: list[Turn], pairs: list[Pair], note: dict[str, Any]) -> BiasFeatures:
        found = file.attribute(attribute)
        k = len(found.classes)
        plain = torch.tensor(self.log.trials["listened"]["read"][attribute])
        shares = [float((plain == c).float().mean()) for c in range(k)]
        causal, error = found.causal.clone(), torch.zeros(k, len(turns))
        for j, (turn, pair) in enumerate(zip(turns, pairs, strict=True)):
            change = pair.change(attribute, k)
            causal[:, turn.index] = change.mean(1)
            error[:, j] = change.std(1, correction=0) / math.sqrt(len(plain))
        record = {
            "features": [t.latent for t in turns],
            "error": [[round(v, 4) for v in row] for row in error.tolist()],
            "typical": [round(self._typical(t), 4) for t in turns],
            "beside": [pair.beside(attribute) for pair in pairs],
            "plain": [round(s, 4) for s in shares],
            "images": len(plain),
            "amount": self.amount,
            **note,
        }
        info = {**file.info, "causal": {**file.info.get("causal", {}), attribute: record}}
        return replace(file, attributes={**file.attributes, attribute: replace(found, causal=causal)}, info=info)


def _hard(seen: Seen) -> dict[str, list[int]]:
    return {a: p.argmax(-1).tolist() for a, p in seen.read.items()}


def _up(turn: Turn, amount: float) -> str:
    return hashlib.sha256(f"up {turn.key} {amount:g} {turn.surplus:.4f}".encode()).hexdigest()[:20]


def _down(turn: Turn) -> str:
    return hashlib.sha256(f"down {turn.key}".encode()).hexdigest()[:20]
