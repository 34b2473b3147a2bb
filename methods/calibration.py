"""Calibrate fitted moves by what they do to labels: for every class the smallest gain that reaches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..models.adp import Move

Trial = Callable[[Move], Tensor]
"""trial(move) -> share of images that the labeller reads as assigned, per class [K], sampled with that move under a uniform target."""

GAINS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)


def with_gains(move: Move, gains: Sequence[float] | Tensor) -> Move:
    """The move with the sizes of every class multiplied by a gain of its own [K]."""
    return replace(move, sizes=move.sizes * torch.as_tensor(gains, dtype=move.sizes.dtype)[None])


def calibrate(
    move: Move,
    trial: Trial,
    gains: Sequence[float] = GAINS,
    enough: float = 0.985,
    margin: float = 1.1,
    progress: Callable[[str], None] | None = None,
) -> tuple[Move, dict[str, Any]]:
    """Choose a gain per class and how images are assigned.

    For every class the smallest of ``gains`` at which at least ``enough`` of its images are read as assigned, times ``margin``; where
    none does, the one that hits most. Small gains matter: what a step does beyond reaching its class is damage. Then images are assigned
    at random instead of by reading, and that is kept where it hits more by a percentage point. Returns the calibrated move and a record
    of the trials.
    """
    classes = move.sizes.shape[1]
    hits: list[list[float]] = []
    for gain in gains:
        hits.append(trial(with_gains(move, [gain] * classes)).tolist())
        if progress:
            progress(f"gain {gain:g}: hit {', '.join(f'{h:.3f}' for h in hits[-1])}")
        if min(hits[-1]) >= enough and min(max(h[k] for h in hits) for k in range(classes)) >= enough:
            break
    table = torch.tensor(hits)
    chosen = []
    for k in range(classes):
        reached = (table[:, k] >= enough).nonzero().flatten()
        chosen.append(gains[int(reached[0])] * margin if len(reached) else gains[int(table[:, k].argmax())])
    best = with_gains(move, chosen)
    final = {how: trial(replace(best, assign=how)) for how in ("reading", "seeded")}
    assign = "seeded" if float(final["seeded"].mean() - final["reading"].mean()) > 0.01 else "reading"
    if progress:
        progress(f"gains {', '.join(f'{g:.2f}' for g in chosen)}: hit {final[assign].tolist()} assigned by {assign}")
    record = {
        "gains": [round(g, 4) for g in chosen],
        "trials": {f"{g:g}": [round(h, 4) for h in row] for g, row in zip(gains, hits, strict=False)},
        "final": {how: [round(h, 4) for h in value.tolist()] for how, value in final.items()},
    }
    return replace(best, assign=assign), record
