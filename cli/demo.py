"""``equipoise demo``: sample the shipped model before and after guidance, and measure both with the judge, without a host."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ..charts.core.sheet import contact_sheet, side_by_side
from ..methods.core.target_text import parse_target
from ..methods.core.targets import TargetDistribution
from ..methods.guidance.run import GuidanceRun, GuidanceSettings
from ..metrics.fairness import assigned_hit_rate, joint_classes, joint_probabilities, measure
from ..shipped import weights
from .console import progress_bar
from .publish import publish, with_record
from .sampling import sample

SEED = 400_000_000
"""First seed of the demo; no training, calibration or tuning used it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--target", default="eyeglasses: yes=0.5,no=0.5", help="distribution to reach")
    parser.add_argument("--n", type=int, default=256, help="images before and after")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--sheet", type=Path, default=Path("equipoise_demo.png"), help="PNG sheet to write")
    parser.add_argument("--json", type=Path, help="write the figures here too")


def run(args: argparse.Namespace) -> int:
    """Sample, measure, draw the sheet and print the figures."""
    started = time.monotonic()
    net, adp, judge = weights.diffusion(), weights.adp(), weights.classifier(weights.JUDGE)
    target = parse_target(args.target, adp.attributes).reordered(judge.attributes)
    seeds = list(range(args.seed, args.seed + args.n))

    def make_run(number: int, first_seed: int) -> GuidanceRun:
        return GuidanceRun(adp, GuidanceSettings(target, seed=first_seed))

    bars = [progress_bar("plain samples"), progress_bar("guided samples")]
    base = sample(net, seeds, args.batch, on_step=lambda d, t: bars[0](d, t, {}))
    ours = sample(net, seeds, args.batch, make_run=make_run, on_step=lambda d, t: bars[1](d, t, {}))
    figures = compare(judge, target, base.images, ours.images, ours.cells, args.batch)
    print(summary_text(figures, target))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet(judge, target, base.images, ours.images, figures)).save(args.sheet)
    print(f"sheet: {args.sheet}")
    publish(with_record({**figures, "seeds": [args.seed, args.seed + args.n - 1]}, started), args.json)
    return 0


def compare(judge, target: TargetDistribution, before, after, cells, batch: int) -> dict[str, object]:
    """Measure images [N, 3, H, W] before and after guidance, by the judge's hard counts."""
    names = joint_classes({a: judge.attributes[a] for a in target.attributes})
    read = [joint_probabilities({a: p[a] for a in target.attributes}) for p in (judge.probabilities(before), judge.probabilities(after))]
    reports = [measure(p, names, target.shares, batch=batch) for p in read]
    return {
        "fd_before": reports[0].fd,
        "fd_after": reports[1].fd,
        "fd_after_low": reports[1].fd_low,
        "fd_after_high": reports[1].fd_high,
        "noise_floor": reports[1].noise_floor,
        "assigned_hit_rate": assigned_hit_rate(read[1], cells),
        "shares_before": dict(zip(names, reports[0].shares, strict=True)),
        "shares_after": dict(zip(names, reports[1].shares, strict=True)),
        "unsure_before": reports[0].unsure,
        "unsure_after": reports[1].unsure,
        "n": reports[1].n,
        "target": dict(zip(target.names, target.shares, strict=True)),
        "attributes": list(target.attributes),
    }


def summary_text(figures: dict, target: TargetDistribution) -> str:
    """Put the figures into words."""
    lines = [f"{' x '.join(target.attributes)}, {figures['n']} images, hard counts of the judge:"]
    for name, share in figures["target"].items():
        lines.append(
            f"  {name:<20} target {share:6.1%}   before {figures['shares_before'][name]:6.1%}   after {figures['shares_after'][name]:6.1%}"
        )
    lines.append(
        f"fairness discrepancy: before {figures['fd_before']:.3f}, after {figures['fd_after']:.3f} "
        f"(95% interval {figures['fd_after_low']:.3f} to {figures['fd_after_high']:.3f}); an independent fair sampler: "
        f"{figures['noise_floor']:.3f}"
    )
    lines.append(f"judged as assigned: {figures['assigned_hit_rate']:.1%}")
    return "\n".join(lines)


def sheet(judge, target: TargetDistribution, before, after, figures: dict, shown: int = 48) -> np.ndarray:
    """Draw a contact sheet of the first images: uint8 [H, W, 3].

    Framed by the class that the judge reads.
    """
    sheets = []
    for images, caption, fd in ((before, "plain sampling", "fd_before"), (after, "with distribution guidance", "fd_after")):
        read = judge.probabilities(images[:shown])
        cells = joint_probabilities({a: read[a] for a in target.attributes}).argmax(-1).tolist()
        note = f"FD {figures[fd]:.3f}, n = {figures['n']}"
        sheets.append(contact_sheet(images[:shown], cells, target.names, caption, note, columns=8))
    return side_by_side(*sheets)
