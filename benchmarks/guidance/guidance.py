"""``bench guidance``: compare distribution guidance with other methods at batches of 1 to 64.

The other methods are the paper's losses, per-image baselines and universal guidance. Every cell (method, target and batch size) is sampled
through the host's KSampler in its own process and stored in the folder.

First the judge chooses the scale of every method that has one, on other seeds. This favours those methods: ours stays as the labeller
calibrated it. Then each cell gets 256 images; all methods have the same seeds at one batch size. The judge's hard counts give the figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ...factory.portraits import ATTRIBUTES
from ...methods.core.target_text import parse_target
from ...metrics.fairness import noise_floor
from ...shipped import weights
from ..core.children import cores, in_children, start_method
from ..core.stages import load_or_make
from ..data.forest import forest
from .guidance_cells import (
    BASE,
    BATCHES,
    FIRST,
    IMAGES,
    METHODS,
    MIXING,
    OURS,
    QUICK_BATCHES,
    QUICK_IMAGES,
    QUOTA,
    SEED,
    SLACK,
    SOFT,
    TARGETS,
    TEXT,
    TRIAL_SEED,
    UNCONDITIONAL,
    Cell,
    Key,
    at_edge,
    best_scale,
    cells,
    next_trial,
    target_batches,
    trials,
)
from .guidance_figures import COLUMNS, Reference, cell_figures, scale_figure
from .guidance_samples import CellSampler, facts

FIFTH = 0.2
"""Largest allowed ratio between our FD and the better of the paper's losses at small batches."""
_sampler: CellSampler | None = None


def _work(folder: Path, beds: tuple[str, ...], cell: Cell) -> None:
    """Sample one cell in a child process. A forked child has its parent's models."""
    global _sampler
    _sampler = _sampler or CellSampler(beds)
    load_or_make(folder, cell.name, facts(cell), partial(_sampler.make, cell, folder))


def _nothing() -> dict[str, Any]:
    """Fail, because the part must be in the folder already."""
    raise ValueError("A finished part of this benchmark is missing. Make sure that no other run uses its folder, and run it again.")


def sample_cells(folder: Path, wanted: Sequence[Cell], beds: tuple[str, ...], workers: int) -> dict[Cell, dict[str, Any]]:
    """Sample all cells that are not stored yet; returns what was measured while sampling."""
    global _sampler
    missing = []
    for cell in wanted:
        if not (folder / f"{cell.name}.safetensors").is_file():
            (folder / f"{cell.name}.json").unlink(missing_ok=True)
        try:
            load_or_make(folder, cell.name, facts(cell), _nothing)
        except ValueError:
            missing.append(cell)
    if missing:
        if start_method() == "fork":
            _sampler = _sampler or CellSampler(beds)
        in_children(partial(_work, folder, beds), missing, workers)
    return {cell: load_or_make(folder, cell.name, facts(cell), _nothing) for cell in wanted}


def tried_figures(folder: Path, of_key: Sequence[Cell]) -> dict[float, float]:
    """Return the trial results of one method: scale -> figure, lower is better."""
    return {cell.strength: scale_figure(cell, folder) for cell in of_key}


def try_further(folder: Path, tried: dict[Key, list[Cell]], beds: tuple[str, ...], workers: int) -> None:
    """Add larger scales to ``tried`` as long as the largest scale is the best."""
    while added := {key: cell for key, of_key in tried.items() if (cell := next_trial(of_key, tried_figures(folder, of_key)))}:
        sample_cells(folder, list(added.values()), beds, workers)
        for key, cell in added.items():
            tried[key].append(cell)


def choose_scales(folder: Path, tried: Mapping[Key, Sequence[Cell]]) -> tuple[dict[Key, float], dict[str, Any]]:
    """Choose the best scale for every key.

    Returns key -> scale, and a table of all trials: text -> scale -> figure.
    """
    scales, table = {}, {}
    for key, of_key in tried.items():
        figures = tried_figures(folder, of_key)
        scales[key] = best_scale(figures)
        table[f"{key[0]}, {key[1]}, batch {key[2]}"] = {
            "chosen": scales[key],
            "at_edge": at_edge(figures) is not None,
            "missed": {f"{scale:g}": figure for scale, figure in figures.items()},
        }
    return scales, table


def run(quick: bool, folder: Path | None = None, workers: int | None = None) -> dict[str, Any]:
    """Run all cells.

    ``folder``: where cells are stored (default: a temporary folder); ``workers``: processes (default: one per core, at most 2).
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-guidance-") as temporary:
            return run(quick, Path(temporary), workers)
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    at_once = max(1, min(2, workers or cores()))
    text = weights.TEXT.is_file() and weights.ADP_TEXT.is_file()
    beds = (UNCONDITIONAL, TEXT) if text else (UNCONDITIONAL,)
    tried = trials(quick)
    sample_cells(folder, [cell for of_key in tried.values() for cell in of_key], beds, at_once)
    if not quick:
        try_further(folder, tried, beds, at_once)
    scales, table = choose_scales(folder, tried)
    wanted = list(cells(quick, scales, text))
    made = sample_cells(folder, wanted, beds, at_once)
    reference = Reference(folder)
    results: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for target, batch in target_batches(quick):
        for cell in wanted:
            if cell.batch == batch and cell.target in (None, target):
                results[cell.bed, cell.method, target, batch] = cell_figures(cell, target, made[cell], folder, reference)
    return guidance_result(results, table, quick, folder)


def guidance_result(
    results: Mapping[tuple[str, str, str, int], dict[str, Any]], scales: Mapping[str, Any], quick: bool, folder: Path
) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them; draw the figure.

    results: (bed, method, target, batch) -> figures.
    """

    def methods(target: str, batch: int) -> dict[str, Any]:
        return {m: results.get((TEXT if m.removesuffix(QUOTA) == MIXING else UNCONDITIONAL, m, target, batch)) for m in METHODS}

    batches = QUICK_BATCHES if quick else BATCHES
    by_batch = {str(batch): methods(FIRST, batch) for batch in batches}
    by_target = {target: methods(target, batch) for target, batch in target_batches(quick) if target != FIRST or batch == 16}
    text = {str(b): {m: results.get((TEXT, m, FIRST, b)) for m in (BASE, MIXING, MIXING + QUOTA, OURS)} for b in batches}
    n = QUICK_IMAGES if quick else IMAGES
    floors = {t: noise_floor(parse_target(TARGETS[t], ATTRIBUTES).shares, n) for t in by_target}
    draw_guidance(by_batch, floors[FIRST], n, folder / "guidance.png")
    return {
        "by_batch": by_batch,
        "by_target": by_target,
        "noise_floor": floors[FIRST],
        "noise_floors": floors,
        "text_model": text if any(v for of_batch in text.values() for v in of_batch.values()) else None,
        "comparison": {b: compare_methods({m: f for m, f in of.items() if m.removesuffix(QUOTA) != MIXING}) for b, of in by_batch.items()},
        "text_comparison": {b: compare_methods(of) for b, of in text.items() if of[OURS]},
        "scales": scales,
        "n": n,
        "targets": {t: TARGETS[t] for t in by_target},
        "seeds": [SEED, TRIAL_SEED],
        "notes": notes(by_batch, by_target, text, quick),
    }


def compare_methods(methods: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    """Compare ours with the lowest FD on the same model, and with the paper's losses.

    ``reaches_lowest``: ours is the lowest, or its interval reaches down to the lowest; ``within_lowest``: ours is not above the upper end
    of the lowest one's interval; ``of_paper``: our FD divided by that of the better loss (None if that is 0).
    """
    fd = {m: f["fd"] for m, f in methods.items() if f is not None}
    lowest = min(fd, key=lambda m: (fd[m], m != OURS))
    low, high = methods[OURS]["fd_low"], methods[lowest]["fd_high"]
    comparison = {
        "lowest": lowest,
        "lowest_fd": fd[lowest],
        "ours": fd[OURS],
        "reaches_lowest": fd[lowest] >= (fd[OURS] if low is None else low),
        "within_lowest": fd[OURS] <= (fd[lowest] if high is None else max(fd[lowest], high)),
    }
    if not set(SOFT) <= set(fd):
        return comparison
    paper = min(fd[m] for m in SOFT)
    return {**comparison, "of_paper": fd[OURS] / paper if paper > 0 else None, "at_most_a_fifth": fd[OURS] <= FIFTH * paper}


def notes(by_batch: Mapping[str, Any], by_target: Mapping[str, Any], text: Mapping[str, Any], quick: bool) -> dict[str, str]:
    """Explain the figures, and say why some are missing."""
    texts = {
        "by_batch": f"target '{FIRST}', the unconditional model, ddim, 20 steps; {', '.join(COLUMNS)} by the judge's hard counts",
        "label-mixing": "on the small text model (euler, 20 steps, cfg 4, 'a photo of a PROFESSION' in turn, with the class named or not), "
        "since the unconditional one has no prompts: compare it with 'text_model', where its base and ours stand",
        "scales": "the judge chose them on seeds of their own; the smallest within "
        f"{SLACK:.0%} of the best; larger ones are tried as long as the largest is the best; 'at_edge': it still is, or the smallest is",
        "sample": "Balancing Act's per-image guidance (temperature 8) at the middle block",
        "latent-editing": "the class-mean difference of the shipped ADP file, at the site, window and relative sizes that calibration "
        "found for it, times a scale found here",
        "universal": "forward universal guidance with the labeller, without backward guidance and self-recurrence",
        QUOTA.strip("+"): "NAME+quota: classes by our quotas and, where the ADP reads images, our assignment of least change ('universal' "
        "and 'label-mixing': at random); NAME: every image draws its class independently",
        "fd_low": "95% bootstrap, of whole batches where the images of a batch depend on each other; at batch 64 there are few of those",
        "drift": "largest change of a class's share of an attribute that was not targeted, from plain images of the same seeds and model; "
        "'drift_floor': its mean where the two are exchanged at random within pairs",
        "frechet": "to 6,000 drawn portraits weighted to the target, in the judge's features; compare at the same n only",
        "seconds_per_image": "processor time of sampling and decoding, one thread",
        "peak_mb": "of a process that samples one cell, ComfyUI, models and the machinery of this benchmark included; subtract 'base'",
    }
    if quick:
        texts["quick"] = "one target, two batch sizes, fewer images and scales; indicative"
    if any(f is None for table in (by_batch, by_target) for of_place in table.values() for f in of_place.values()):
        texts["null"] = "label-mixing is null: the small text model is not shipped with this copy"
    if any(f["peak_mb"] is None for of_place in by_batch.values() for f in of_place.values() if f):
        texts["null peak_mb"] = "null: this system does not tell a process's peak of memory"
    commits = {str(f["commit"])[:9] for of_batch in (*by_batch.values(), *by_target.values()) for f in of_batch.values() if f}
    if len(commits) > 1:
        texts["commit"] = f"cells were sampled at commits {', '.join(sorted(commits))}"
    return texts


def draw_guidance(by_batch: Mapping[str, Mapping[str, dict[str, Any] | None]], floor: float, n: int, path: Path) -> None:
    """Draw FD with intervals, a panel per batch size."""
    panels = {f"batch {b}": {m: (f["fd"], f["fd_low"], f["fd_high"]) for m, f in of.items() if f} for b, of in by_batch.items()}
    title = f"Distance from {FIRST.replace('0.5', '50/50')}, {n} images each"
    note = "hard counts of the judge, 95% intervals; dotted: mean of an independent fair sampler; each baseline at its best scale"
    picture = forest(panels, title, "fairness discrepancy (FD), lower is better", (OURS,), dict.fromkeys(panels, floor), note)
    Image.fromarray(picture).save(path)
