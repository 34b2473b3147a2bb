"""Measure FD and hits of each kind of direction in the shipped ADP.

Each direction uses its calibrated sizes. The judge counts. No ComfyUI is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...cli.sampling import sample
from ...methods.core.target_text import parse_target
from ...methods.guidance.run import GuidanceRun, GuidanceSettings
from ...metrics.fairness import assigned_hit_rate, measure
from ...shipped import weights
from ..core.stages import load_or_make

SEED = 841_000_000
TARGET = "eyeglasses: yes=0.5, no=0.5"


def kinds_of_direction(folder: Path, n: int) -> dict[str, Any]:
    """Measure every direction of the shipped file; returns source of the move -> figures."""
    adp = weights.adp()
    return {
        source: load_or_make(folder, f"direction-{source}", {"n": n, "seed": SEED, "target": TARGET}, lambda s=source: _measure(s, n))
        for source in adp.sources()["eyeglasses"]
    }


def _measure(source: str, n: int) -> dict[str, Any]:
    adp, net, judge = weights.adp(), weights.diffusion(), weights.classifier(weights.JUDGE)
    target = parse_target(TARGET, adp.attributes)

    def make_run(number: int, first: int) -> GuidanceRun:
        return GuidanceRun(adp, GuidanceSettings(target, direction=source, seed=first))

    made = sample(net, list(range(SEED, SEED + n)), 16, make_run=make_run)
    read = judge.probabilities(made.images)["eyeglasses"]
    report = measure(read, target.names, target.shares, batch=16)
    move = adp.sources()["eyeglasses"][source]
    return {
        "fd": report.fd,
        "fd_low": report.fd_low,
        "fd_high": report.fd_high,
        "hits": assigned_hit_rate(read, made.cells),
        "unsure": report.unsure,
        "n": report.n,
        "site": move.site,
        "assign": move.assign,
    }
