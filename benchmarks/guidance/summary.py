"""Write the tables of docs/evidence/methods.md from the figures of ``bench guidance`` in ``results/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .guidance_cells import BASE, BATCHES, METHODS, MIXING, OURS, QUOTA, TARGET_BATCH, TARGETS, TEXT

RESULTS = Path(__file__).resolve().parents[1] / "results"
NAMES = {
    BASE: "plain sampling",
    "chi-square": "the paper's `chi-square`",
    "kl": "the paper's `kl`",
    "sample": "per image: sample guidance",
    MIXING: "per image: the class in the prompt",
    "latent-editing": "per image: h-space direction",
    "universal": "per image: universal guidance",
    OURS: "**Distribution Guidance**",
}


def results(name: str) -> dict[str, Any]:
    """Read the stored figures of a benchmark. Raises FileNotFoundError if there are none."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def method_name(method: str) -> str:
    """Return the name of a method of ``bench guidance`` as the tables show it."""
    kind = method.removesuffix(QUOTA)
    return NAMES[kind] + (", our quotas" if kind != method else "")


def guidance_row(name: str, by_batch: Mapping[str, Mapping[str, Any]], method: str, base: str = BASE) -> str:
    """Write a table row: FD by batch size, then quality and cost.

    Quality and cost are those at batch 16. Time and memory are relative to the method ``base``.
    """
    at, plain = by_batch[str(TARGET_BATCH)][method], by_batch[str(TARGET_BATCH)][base]
    fds = [f"{by_batch[str(b)][method]['fd']:.3f}" for b in BATCHES]
    quality = [f"{at['frechet']:.2f}", f"{100 * at['drift']:.1f}", f"{100 * at['unsure']:.1f}"]
    cost = [f"{at['seconds_per_image'] / plain['seconds_per_image']:.2f}", f"{at['peak_mb'] - plain['peak_mb']:.0f}"]
    return "| " + " | ".join([name, *fds, *quality, *cost]) + " |"


def guidance_table(figures: Mapping[str, Any]) -> str:
    """Write a Markdown table with a row per method.

    The small text model has rows of its own: only it has prompts, so its plain images differ.
    """
    batches = [f"FD, batch {b}" if b == BATCHES[0] else str(b) for b in BATCHES]
    head = ["eyeglasses 50/50", *batches, "Frechet", "drift, points", "unsure, %", "time", "memory, MB"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    by_batch, text = figures["by_batch"], figures["text_model"]
    lines += [guidance_row(method_name(m), by_batch, m) for m in METHODS if m.removesuffix(QUOTA) != MIXING]
    order: Sequence[str] = (BASE, MIXING, MIXING + QUOTA, OURS)
    lines += [guidance_row(f"{TEXT} model: {method_name(m)}", text, m) for m in order]
    return "\n".join(lines)


def targets_table(figures: Mapping[str, Any]) -> str:
    """Write a Markdown table of FD by method and target, with 95% intervals.

    All figures are of the unconditional model at batch 16.
    """
    lines = ["| " + " | ".join(["FD at batch 16", *TARGETS]) + " |", "|" + "---|" * (len(TARGETS) + 1)]
    for method in (m for m in METHODS if m.removesuffix(QUOTA) != MIXING):
        by_method = [figures["by_target"][target][method] for target in TARGETS]
        cells = [f"{f['fd']:.3f} ({f['fd_low']:.3f} to {f['fd_high']:.3f})" for f in by_method]
        lines.append("| " + " | ".join([method_name(method), *cells]) + " |")
    return "\n".join(lines)
