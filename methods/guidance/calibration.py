"""Search the sizes of moves by trials: which direction, at which noise levels, how far, and who is assigned what.

A trial samples images under a uniform target with a move and reports what the labeller reads. Everything is chosen by trials, because a
reading is not an effect: a direction that reads an attribute perfectly may move nothing, and signs and sizes differ between noise levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...models.adp import Move
from ..core.trials import Say, TrialResult

Trial = Callable[[Move], TrialResult]
"""Samples images with a move and measures them."""

GAINS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.8)
EARLY_GAINS = (1.0, 1.5, 2.2)
EARLY = -3.0
"""Log-SNR below which the composition of an image (what goes along with a class) is decided rather than the class itself."""
SIZES = (0.15, 0.4, 0.8)
BANDS = (-4.0, 1.0)
"""Log-SNR between which the sizes of directions read off features are searched first; the bands outside follow, with signs of their own."""


def with_gains(move: Move, gains: Sequence[float] | Tensor, early: float = 1.0) -> Move:
    """Multiply sizes by a gain per class [K], and below ``EARLY`` by ``early`` instead."""
    factor = torch.as_tensor(gains, dtype=move.sizes.dtype)[None].expand_as(move.sizes)
    is_early = (move.knots <= EARLY).to(move.sizes.device)[:, None]
    return replace(move, sizes=move.sizes * torch.where(is_early, torch.full_like(factor, early), factor))


def with_bands(move: Move, sizes: Sequence[float]) -> Move:
    """Give all classes one signed size below, between and above ``BANDS``."""
    band = torch.bucketize(move.knots, torch.tensor(BANDS, dtype=move.knots.dtype))
    per_knot = torch.tensor(list(sizes), dtype=move.sizes.dtype)[band]
    return replace(move, sizes=per_knot[:, None].expand_as(move.sizes).clone())


def calibrate(
    move: Move, trial: Trial, wanted_share: float = 0.985, margin: float = 1.1, say: Say | None = None
) -> tuple[Move, dict[str, Any]]:
    """Choose the gains of a learned move, and how images are assigned.

    Return the move and a record of the trials.

    First with classes drawn at random ("seeded"): an early gain that leaves what goes along with a class as in plain samples, then for
    every class the smallest later gain at which ``wanted_share`` of its images show it, times ``margin`` (if none does, the gain that hits
    most). What a step does beyond reaching its class is damage. Then the same with classes assigned by least change ("reading"). Seeded is
    chosen if it hits as many, within half a percentage point, and drifts less.
    """
    say = say or (lambda text: None)
    results: dict[str, tuple[Move, TrialResult]] = {}
    record: dict[str, Any] = {}
    for assign in ("seeded", "reading"):
        start = replace(move, assign=assign)
        tried: dict[str, list[float]] = {}
        early = 1.0
        if assign == "seeded":
            drifts = {}
            for early in EARLY_GAINS:
                result = trial(with_gains(start, [1.0] * start.sizes.shape[1], early))
                tried[f"early {early:g}"], drifts[early] = result.to_list(), result.drift
                say(f"{assign}, early gain {early:g}: hits and drift {result.to_list()}")
            early = min(drifts, key=drifts.get)
        gains, ladder = _class_gains(start, trial, early, wanted_share, margin, say)
        best = with_gains(start, gains, early)
        result = trial(best)
        say(f"{assign}, gains {[round(g, 3) for g in gains]}: hits and drift {result.to_list()}")
        results[assign] = best, result
        record[assign] = {"early_gain": early, "gains": [round(g, 4) for g in gains], "trials": tried | ladder, "final": result.to_list()}
    seeded, reading = results["seeded"][1], results["reading"][1]
    close = float(seeded.hits.mean()) >= min(wanted_share, float(reading.hits.mean()) - 0.005)
    chosen = "seeded" if close and seeded.drift < reading.drift else "reading"
    return results[chosen][0], record | {"assign": chosen}


def _class_gains(
    move: Move, trial: Trial, early: float, wanted_share: float, margin: float, say: Say
) -> tuple[list[float], dict[str, list[float]]]:
    """Find for every class the smallest of ``GAINS`` that reaches it, times ``margin``.

    Return the trials too.
    """
    classes = move.sizes.shape[1]
    table: list[Tensor] = []
    tried: dict[str, list[float]] = {}
    for gain in GAINS:
        result = trial(with_gains(move, [gain] * classes, early))
        table.append(result.hits)
        tried[f"{gain:g}"] = result.to_list()
        say(f"{move.assign}, gain {gain:g}: hits and drift {result.to_list()}")
        if (torch.stack(table).amax(0) >= wanted_share).all():
            break
    hits = torch.stack(table)
    chosen = []
    for k in range(classes):
        reached = (hits[:, k] >= wanted_share).nonzero().flatten()
        chosen.append(GAINS[int(reached[0])] * margin if len(reached) else GAINS[int(hits[:, k].argmax())])
    return chosen, tried


def calibrate_direction(
    move: Move, trial: Trial, say: Say | None = None, sizes: Sequence[float] = SIZES, wanted_share: float | None = None
) -> tuple[Move, TrialResult, dict[str, list[float]]]:
    """Choose signed sizes by bands of noise levels for a direction of features.

    First the size in the middle band (the smallest within a percentage point of the best mean hits), then the high-noise band with either
    sign, then the low-noise band; a band is used only if it adds more than a percentage point. ``sizes``: of the middle band, ascending.
    ``wanted_share``: mean hits that end the search; with it, larger sizes are not tried after hits have fallen by 5 points. Returns the
    move, its last trial, and all trials ("high/middle/low" -> hits and drift).
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
        if wanted_share is not None and (top >= wanted_share or score(results[size]) < top - 0.05):
            break
    middle = next(s for s, r in results.items() if score(r) >= top - 0.01)
    best, chosen = results[middle], (0.0, middle, 0.0)
    for band, factors in ((0, (-1.0, 0.5, 1.0)), (2, (1.0,))):
        before = chosen
        for factor in factors:
            if wanted_share is not None and score(best) >= wanted_share:
                break
            candidate = tuple(factor * middle if i == band else s for i, s in enumerate(before))
            result = run(candidate)
            if score(result) > score(best) + 0.01:
                best, chosen = result, candidate
    return with_bands(move, chosen), best, tried
