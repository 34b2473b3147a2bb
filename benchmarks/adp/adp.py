"""``bench adp``: measure how an ADP reads, what training costs, and which samplers it serves.

Each part is stored in the folder and not repeated:

- both kinds of predictor, trained on one set of plain samples;
- training time on random features of fixed sizes;
- the kinds of direction;
- a new attribute from the command line;
- a table of training sampler x guidance sampler, through ComfyUI. Each training sampler does all steps from recording to calibration.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ...cli.publish import host_version
from .adp_accuracy import ATTRIBUTE, accuracy_of_kinds
from .adp_directions import SEED as DIRECTION_SEED
from .adp_directions import kinds_of_direction
from .adp_timing import timings
from .clothing import GUIDED_SEED as CLOTHING_SEED
from .clothing import new_attribute, sample_portraits
from .cross_scheduler import (
    GUIDED_SEED,
    QUICK,
    QUICK_SIZES,
    RECORD_SEED,
    SAMPLING_METHODS,
    START_SEED,
    TRIAL_SEED,
    SamplingMethod,
    TableSizes,
    table_row,
)

PLAIN, PLAIN_SEED = 1536, 835_000_000
QUICK_PLAIN = 512


def run(quick: bool, folder: Path | None = None, workers: int = 2) -> dict[str, Any]:
    """Run all parts.

    ``folder``: where parts are stored (default: a temporary folder); ``workers``: processes for the table.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-adp-") as temporary:
            return run(quick, Path(temporary), workers)
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1, workers)))
    recorded, labels = folder / "plain-features", folder / "plain.csv"
    n = QUICK_PLAIN if quick else PLAIN
    lines = sample_portraits(folder, "plain", n, PLAIN_SEED, "--record", str(recorded), "--labels", str(labels))
    kinds = accuracy_of_kinds(folder, recorded, labels)
    directions = kinds_of_direction(folder, 256 if quick else 512)
    clothing = None if quick else new_attribute(folder, recorded, lines, 512)
    methods, sizes = (QUICK, QUICK_SIZES) if quick else (SAMPLING_METHODS, TableSizes())
    table = cross_table(folder, methods, sizes, workers) if host_version() else []
    timing = timings(folder, quick)
    return adp_result(timing, kinds, directions, clothing, table, sizes, quick)


def cross_table(folder: Path, methods: tuple[SamplingMethod, ...], sizes: TableSizes, workers: int) -> list[dict[str, Any]]:
    """Make one row per training sampler; the shipped file's row comes last."""
    trained = [*sorted(methods, key=lambda m: m.steps), None]
    if workers == 1:
        rows = [table_row(folder, method, methods, sizes) for method in trained]
    else:
        # Spawned, not forked: this process has used torch's threads by now.
        with ProcessPoolExecutor(min(workers, 2), mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(table_row, [folder] * len(trained), trained, [methods] * len(trained), [sizes] * len(trained)))
    order = [m.name for m in methods]
    return sorted(rows, key=lambda r: order.index(r["trained"]) if r["trained"] in order else len(order))


def adp_result(
    timing: dict[str, Any],
    kinds: dict[str, Any],
    directions: dict[str, Any],
    clothing: dict[str, Any] | None,
    table: list[dict[str, Any]],
    sizes: TableSizes,
    quick: bool,
) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them."""
    first = kinds["mlp"]["attributes"][ATTRIBUTE]
    own = [r for r in table if r["made"]]
    cells = [c["fd"] for r in own for c in r["cells"].values()]
    notes = {
        "accuracy_mid": f"balanced accuracy on held-out images, kind 'mlp', {ATTRIBUTE}; 'kinds' has all attributes and both kinds",
        "worst_cross_scheduler_fd": "over the ADPs that this benchmark trained; the shipped file has a row of its own",
        "cross_scheduler": "DDIM 50 eta 1 is euler_ancestral on ddim_uniform, which takes the same step here; img2img is euler, 20 steps",
        "train_seconds_per_2000x50": "wall-clock time of train_adp only; 'made_with' has the times of learning and calibration",
    }
    if not table:
        notes["worst_cross_scheduler_fd"] = "null: COMFYUI_PATH holds no ComfyUI"
    if quick:
        notes["quick"] = "two samplers, fewer images, no new attribute and no timing at SD's width; indicative"
    notes["train_seconds_sd_width"] = "null: the full size was not measured" + sd_width_note(timing["sd_part"])
    parts = [*kinds.values(), *directions.values(), *(c for r in table for c in r["cells"].values())]
    commits = {str(f["commit"])[:9] for f in parts}
    if len(commits) > 1:
        notes["commit"] = f"parts were measured at commits {', '.join(sorted(commits))}"
    return {
        "accuracy_mid": first["mid"],
        "by_log_snr": first["by_log_snr"],
        "worst_cross_scheduler_fd": max(cells) if cells else None,
        "train_seconds_per_2000x50": timing["test_bed"]["clock"],
        "train_seconds_sd_width": None,
        "calibrate_seconds": {r["trained"]: r["made"]["stage_seconds"]["calibrate"] for r in own},
        "timing": timing,
        "kinds": kinds,
        "directions": directions,
        "new_attribute": clothing,
        "cross_scheduler": {r["trained"]: r["cells"] for r in table},
        "made_with": {r["trained"]: r["made"] for r in own},
        "sizes": vars(sizes),
        "seeds": [PLAIN_SEED, CLOTHING_SEED, DIRECTION_SEED, START_SEED, RECORD_SEED, TRIAL_SEED, GUIDED_SEED],
        "notes": notes,
    }


def sd_width_note(part: dict[str, Any] | None) -> str:
    """Say how long the measured part at SD's width took, and estimate the full size."""
    if part is None:
        return ""
    seconds = part["processor"] * 2000 / part["images"] * 12 / part["epochs"]
    return (
        f"; {part['images']} images and {part['epochs']} passes took {part['processor']:.0f} s of processor time, in proportion "
        f"{seconds:.0f} s for 2,000 and 12"
    )
