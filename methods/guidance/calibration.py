"""Calibrate moves by what they do to labels: which direction, where, how far, and who is assigned what.

A trial samples images under a uniform target with a move and reports what the labeller sees. Everything is chosen by that: readings are
not effects (a direction that reads an attribute perfectly may move nothing), and signs and sizes differ between noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...models.adp import Move


@dataclass(frozen=True)
class TrialResult:
    """``hits`` [K]: share of the images of a class that the labeller reads as assigned. ``drift``: how far the other attributes within
    classes are from plain samples of these classes (mean total variation distance of their shares, 0 to 1)."""

    hits: Tensor
    drift: float

    def to_list(self) -> list[float]:
        """Hits, then the drift, rounded, for records."""
        return [round(float(h), 4) for h in self.hits] + [round(self.drift, 4)]


Trial = Callable[[Move], TrialResult]
Say = Callable[[str], None]

GAINS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.8)
EARLY_GAINS = (1.0, 1.5, 2.2)
EARLY = -3.0
"""Log-SNR below which the composition of an image (what goes along with a class) is decided rather than the class itself."""
SIZES = (0.15, 0.4, 0.8)
BANDS = (-4.0, 1.0)
"""Log-SNR between which the sizes of directions read off features are searched first; the bands outside follow, with signs of their own."""


def composition_drift(shares: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Mean total variation distance between rows of two tables, attribute -> shares [K, classes]; rows of NaN (no image) are left out."""
    distances = [0.5 * (shares[a] - reference[a]).abs().sum(-1) for a in reference]
    return float(torch.cat(distances).nanmean()) if distances else 0.0


def composition(read: Mapping[str, Tensor], attribute: str, classes: Mapping[str, int], weights: Tensor | None = None) -> dict[str, Tensor]:
    """Shares of every other attribute within each class of ``attribute``, other attribute -> [K, classes]; NaN where a class is empty.

    read: attribute -> class index int64 [N]; weights [N], default 1.
    """
    w = torch.ones(len(read[attribute])) if weights is None else weights
    tables = {}
    for other in classes:
        if other != attribute:
            table = torch.zeros(classes[attribute], classes[other]).index_put_((read[attribute], read[other]), w, accumulate=True)
            tables[other] = table / table.sum(-1, keepdim=True)
    return tables


def with_gains(move: Move, gains: Sequence[float] | Tensor, early: float = 1.0) -> Move:
    """The move with the sizes of every class multiplied by a gain of its own [K], at levels below ``EARLY`` by ``early`` instead."""
    factor = torch.as_tensor(gains, dtype=move.sizes.dtype)[None].expand_as(move.sizes)
    is_early = (move.knots <= EARLY).to(move.sizes.device)[:, None]
    return replace(move, sizes=move.sizes * torch.where(is_early, torch.full_like(factor, early), factor))


def with_bands(move: Move, sizes: Sequence[float]) -> Move:
    """The move with one signed size for each of the bands below, between and above ``BANDS``, for all classes."""
    band = torch.bucketize(move.knots, torch.tensor(BANDS, dtype=move.knots.dtype))
    per_knot = torch.tensor(list(sizes), dtype=move.sizes.dtype)[band]
    return replace(move, sizes=per_knot[:, None].expand_as(move.sizes).clone())


def calibrate(move: Move, trial: Trial, enough: float = 0.985, margin: float = 1.1, say: Say | None = None) -> tuple[Move, dict[str, Any]]:
    """Choose the gains of a learned move, and how images are assigned.

    Classes drawn at random ("seeded"): an early gain that leaves what goes along with a class as it is in plain samples, then for every
    class the smallest later gain at which ``enough`` of its images are read as assigned, times ``margin`` (where none does, the one that
    hits most): what a step does beyond reaching its class is damage. Then the same with classes assigned by least change ("reading").
    Seeded is kept where it hits as many, within half a percentage point, and drifts less. Returns the move and a record of the trials.
    """
    say = say or (lambda text: None)
    found: dict[str, tuple[Move, TrialResult]] = {}
    record: dict[str, Any] = {}
    for how in ("seeded", "reading"):
        start = replace(move, assign=how)
        tried: dict[str, list[float]] = {}
        early = 1.0
        if how == "seeded":
            drifts = {}
            for early in EARLY_GAINS:
                result = trial(with_gains(start, [1.0] * start.sizes.shape[1], early))
                tried[f"early {early:g}"], drifts[early] = result.to_list(), result.drift
                say(f"{how}, early gain {early:g}: hits and drift {result.to_list()}")
            early = min(drifts, key=drifts.get)
        gains, ladder = _class_gains(start, trial, early, enough, margin, say)
        best = with_gains(start, gains, early)
        result = trial(best)
        say(f"{how}, gains {[round(g, 3) for g in gains]}: hits and drift {result.to_list()}")
        found[how] = best, result
        record[how] = {"early_gain": early, "gains": [round(g, 4) for g in gains], "trials": tried | ladder, "final": result.to_list()}
    seeded, reading = found["seeded"][1], found["reading"][1]
    close = float(seeded.hits.mean()) >= min(enough, float(reading.hits.mean()) - 0.005)
    chosen = "seeded" if close and seeded.drift < reading.drift else "reading"
    return found[chosen][0], record | {"assign": chosen}


def _class_gains(
    move: Move, trial: Trial, early: float, enough: float, margin: float, say: Say
) -> tuple[list[float], dict[str, list[float]]]:
    """Per class, the smallest of ``GAINS`` that reaches it, times ``margin``; and what was tried."""
    classes = move.sizes.shape[1]
    table: list[Tensor] = []
    tried: dict[str, list[float]] = {}
    for gain in GAINS:
        result = trial(with_gains(move, [gain] * classes, early))
        table.append(result.hits)
        tried[f"{gain:g}"] = result.to_list()
        say(f"{move.assign}, gain {gain:g}: hits and drift {result.to_list()}")
        if (torch.stack(table).amax(0) >= enough).all():
            break
    hits = torch.stack(table)
    chosen = []
    for k in range(classes):
        reached = (hits[:, k] >= enough).nonzero().flatten()
        chosen.append(GAINS[int(reached[0])] * margin if len(reached) else GAINS[int(hits[:, k].argmax())])
    return chosen, tried


def calibrate_direction(
    move: Move, trial: Trial, say: Say | None = None, sizes: Sequence[float] = SIZES, enough: float | None = None
) -> tuple[Move, TrialResult, dict[str, list[float]]]:
    """Choose signed sizes by bands of noise levels for a direction that was read off features.

    First the size in the middle band (the smallest within a percentage point of the best mean hits), then the high-noise band with either
    sign, then the low-noise band; a band is used only where it adds more than a percentage point. ``sizes``: of the middle band, ascending.
    ``enough``: mean hits at which nothing more is tried; larger sizes then are not tried either where hits have fallen by 5 points. Returns
    the move, its last trial, and all that was tried ("high/middle/low" -> hits and drift).
    """
    say = say or (lambda text: None)
    tried: dict[str, list[float]] = {}

    def run(sizes: tuple[float, float, float]) -> TrialResult:
        result = trial(with_bands(move, sizes))
        name = "/".join(f"{s:g}" for s in sizes)
        tried[name] = result.to_list()
        say(f"{move.source}, sizes {name}: hits and drift {result.to_list()}")
        return result

    def score(result: TrialResult) -> float:
        return float(result.hits.mean())

    results: dict[float, TrialResult] = {}
    top = 0.0
    for size in sizes:
        results[size] = run((0.0, size, 0.0))
        top = max(top, score(results[size]))
        if enough is not None and (top >= enough or score(results[size]) < top - 0.05):
            break
    middle = next(s for s, r in results.items() if score(r) >= top - 0.01)
    best, chosen = results[middle], (0.0, middle, 0.0)
    for place, factors in ((0, (-1.0, 0.5, 1.0)), (2, (1.0,))):
        before = chosen
        for factor in factors:
            if enough is not None and score(best) >= enough:
                break
            candidate = tuple(factor * middle if i == place else s for i, s in enumerate(before))
            result = run(candidate)
            if score(result) > score(best) + 0.01:
                best, chosen = result, candidate
    return with_bands(move, chosen), best, tried
