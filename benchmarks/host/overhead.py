"""``bench overhead``: measure the cost of each patch on full-width SD 1.5 and SDXL.

The models have random weights and run through the host's KSampler.

Time: plain and patched sampling alternate in one process on one thread. The figure is processor time of the calls in which the U-Net, its
patches and CFG run. A run has one step, so the setup of a run counts in full. On busy cores a pair's ratio varies by a tenth, so there are
many pairs. Memory: the peak while sampling; every variant has its own process.

Finished parts are stored in the folder. A full run takes about half an hour of one free core.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...cli.publish import host_version
from ..core.children import in_children
from ..core.stages import load_or_make
from ..data.forest import forest
from .full_width import (
    CFG,
    FLOAT,
    GUIDANCE,
    LATENT,
    LATENTS,
    NEEDS,
    PLAIN,
    STEERING,
    TWO_PASS,
    UNIVERSAL,
    VARIANTS,
    FullWidth,
    dtype_for,
    peak,
    rounds,
)

MODELS = ("sd15", "sdxl")
GROUPS: dict[tuple[str, ...], tuple[int, int]] = {(GUIDANCE, STEERING): (40, 9), (TWO_PASS, UNIVERSAL): (20, 5)}
"""Variants that are timed together -> number of pairs in a full run and in a quick run."""
STEPS, MEMORY_STEPS = 1, 2
LIMITS = {GUIDANCE: 1.03, STEERING: 1.05}
"""Largest time ratios that this pack promises. For memory the limit is 1.05."""


@dataclass(frozen=True)
class Part:
    """Measurement of one process: times of some variants, or the memory of one."""

    model: str
    """Model."""
    variants: tuple[str, ...]
    """Variants to measure."""
    pairs: int = 0
    """Pairs with plain sampling; 0 measures memory."""
    dtype: str = FLOAT
    """Type of the weights."""

    @property
    def name(self) -> str:
        """Return the part's name for files."""
        return "-".join([self.model, "time" if self.pairs else "memory", *self.variants])

    @property
    def facts(self) -> dict[str, Any]:
        """Collect all facts that the figures depend on, except the code."""
        what = {"pairs": self.pairs, "steps": STEPS} if self.pairs else {"steps": MEMORY_STEPS}
        return {**what, "variants": self.variants, "latent": LATENT, "dtype": self.dtype, "cfg": CFG, "sae": LATENTS}


def _work(folder: Path, part: Part) -> None:
    """Measure one part in a process that holds nothing else."""

    def make() -> dict[str, Any]:
        bed = FullWidth(part.model, part.dtype)
        if not part.pairs:
            return peak(bed, part.variants[0], MEMORY_STEPS)
        return rounds(bed, part.variants, part.pairs, STEPS, lambda text: print(text, file=sys.stderr, flush=True))

    load_or_make(folder, part.name, part.facts, make)


def _nothing() -> dict[str, Any]:
    raise LookupError("not kept")


def free_bytes() -> float:
    """Return the memory that a new process can get; infinite if psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return float("inf")
    return float(psutil.virtual_memory().available)


def needed_bytes(part: Part) -> float:
    """Return the peak memory that a part needs, in bytes."""
    needs = NEEDS[part.model, part.dtype]
    return max(needs.get(v, needs[PLAIN]) for v in part.variants)


def fitting(model: str, dtype: str, variants: Sequence[str], free: float) -> tuple[tuple[str, ...], dict[str, str]]:
    """Select the variants that fit into memory; returns them and reasons for the others."""
    able, reasons = [], {}
    for variant in variants:
        room = needed_bytes(Part(model, (variant,), dtype=dtype))
        if free >= room:
            able.append(variant)
        else:
            reasons[variant] = f"null: needs {room / 1e9:.1f} GB of free memory, but {free / 1e9:.1f} GB were free"
    return tuple(able), reasons


def measure_part(folder: Path, part: Part) -> dict[str, Any] | str:
    """Return a part's figures, or the reason why there are none."""
    try:
        return load_or_make(folder, part.name, part.facts, _nothing)
    except LookupError:
        pass
    try:
        in_children(partial(_work, folder), [part], 1, "spawn")
    except ChildProcessError as error:
        return f"null: {error}"
    return load_or_make(folder, part.name, part.facts, _nothing)


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run all parts.

    ``folder``: where parts are stored (default: a temporary folder); ``quick``: only SD 1.5 with a quarter of the pairs.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-overhead-") as temporary:
            return run(quick, Path(temporary))
    if host_version() is None:
        raise ValueError("This benchmark needs ComfyUI, but there is none at COMFYUI_PATH. Set COMFYUI_PATH to a checkout.")
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    times: dict[str, Any] = {}
    memory: dict[str, dict[str, Any]] = {}
    dtypes: dict[str, str] = {}
    for model in MODELS[:1] if quick else MODELS:
        # Chosen once: a resumed run uses the same weights, however much memory is free by then.
        dtype = load_or_make(folder, f"{model}-dtype", {"latent": LATENT}, lambda m=model: {"dtype": dtype_for(m, free_bytes())})["dtype"]
        dtypes[model] = dtype
        able, reasons = fitting(model, dtype, VARIANTS, free_bytes())
        measured = (PLAIN, *able) if able else ()
        memory[model] = {**reasons, **{v: measure_part(folder, Part(model, (v,), dtype=dtype)) for v in measured}}
        times[model] = dict(reasons)
        for group, (full, few) in GROUPS.items():
            timed = tuple(v for v in group if v in able)
            figures = measure_part(folder, Part(model, timed, few if quick else full, dtype)) if timed else None
            times[model] |= dict.fromkeys(timed, figures)
    return {**overhead_result(times, memory, quick, folder), "dtypes": dtypes}


def overhead_result(
    times: Mapping[str, Mapping[str, Any]], memory: Mapping[str, Mapping[str, Any]], quick: bool, folder: Path
) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them; draw the figure.

    times: model -> variant -> figures of :func:`rounds`, or the reason why there are none; memory: the same, of :func:`peak`.
    """
    notes = {
        "time_ratio": f"median of pairs; processor time of one thread, batch 1, cfg {CFG:g} (two rows), random weights; 'clock_ratio': "
        "the same in wall-clock time",
        "memory_ratio": "peak resident memory while sampling, each variant in its own process, with ComfyUI and the weights",
        "latents": f"{LATENT[0]} x {LATENT[1]}, smaller than in practice, so that the U-Net is cheap compared with the patches; 'dtypes': "
        "type of the weights, float32 if it fits, which ComfyUI also chooses on a CPU",
        "universal": "only the gradient through the U-Net; in practice a VAE decoder and a classifier come on top",
        "two-pass": "steering by the paper's rule, with a second U-Net pass per step",
    }
    out: dict[str, Any] = {}
    for model in MODELS:
        rows = {}
        for variant in VARIANTS:
            row = ratios(times.get(model, {}), memory.get(model, {}), variant)
            rows[variant] = row
            for key, parts in (("time_ratio", times), ("memory_ratio", memory)):
                if row[key] is None:
                    notes[f"{model}.{variant}.{key}"] = why_null(parts.get(model, {}), variant, key, quick)
        seconds = [s for f in times.get(model, {}).values() if isinstance(f, Mapping) for s in f["processor"][PLAIN]]
        out[model] = {**rows, "plain_seconds_per_step": float(np.median(seconds)) if seconds else None}
    draw_overhead(out, folder / "overhead.png")
    parts = [f for table in (times, memory) for of_model in table.values() for f in of_model.values() if isinstance(f, Mapping)]
    commits = {str(f["commit"])[:9] for f in parts}
    if len(commits) > 1:
        notes["commit"] = f"parts were measured at commits {', '.join(sorted(commits))}"
    if quick:
        notes["quick"] = "few pairs, SD 1.5 alone; indicative"
    return {
        **out,
        "limits": LIMITS,
        "times": times,
        "memory": memory,
        "seeds": [0, max(full for full, _ in GROUPS.values())],
        "notes": notes,
    }


def ratios(times: Mapping[str, Any], memory: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Divide time and memory of a variant by those of plain sampling.

    A ratio is None if it was not measured. ``time_low``, ``time_high``: quartiles of the pairs.
    """
    row: dict[str, Any] = dict.fromkeys(("time_ratio", "time_low", "time_high", "clock_ratio", "pairs", "memory_ratio", "peak_mb"))
    timed, mine, plain = times.get(variant), memory.get(variant), memory.get(PLAIN)
    if isinstance(timed, Mapping):
        processor, clock = (np.asarray(timed[k][variant]) / np.asarray(timed[k][PLAIN]) for k in ("processor", "clock"))
        row["time_low"], row["time_ratio"], row["time_high"] = (float(q) for q in np.quantile(processor, (0.25, 0.5, 0.75)))
        row["clock_ratio"], row["pairs"] = float(np.median(clock)), len(processor)
    if isinstance(mine, Mapping) and isinstance(plain, Mapping) and mine["peak_mb"] and plain["peak_mb"]:
        row["memory_ratio"], row["peak_mb"] = mine["peak_mb"] / plain["peak_mb"], mine["peak_mb"]
    return row


def why_null(parts: Mapping[str, Any], variant: str, key: str, quick: bool) -> str:
    """Give the reason why a figure is missing. parts: variant -> figures or reason."""
    if not parts:
        return "null: left out of --quick" if quick else "null: not measured"
    reasons = [parts[v] for v in (variant, PLAIN) if isinstance(parts.get(v), str)]
    if reasons:
        return str(reasons[0])
    return "null: this system does not tell a process's peak of memory" if key == "memory_ratio" else "null: not measured"


def draw_overhead(out: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw time ratios with the quartiles of the pairs, a panel per model."""
    names = {"sd15": "SD 1.5", "sdxl": "SDXL"}
    panels = {}
    for model in MODELS:
        rows = {v: out[model][v] for v in VARIANTS if out[model][v]["time_ratio"] is not None}
        if rows:
            panels[names[model]] = {v: (r["time_ratio"], r["time_low"], r["time_high"]) for v, r in rows.items()}
    if panels:
        note = "median and quartiles of alternating pairs; dotted: plain sampling"
        picture = forest(panels, "Time per step, times plain sampling", "ratio", tuple(LIMITS), dict.fromkeys(panels, 1.0), note)
        Image.fromarray(picture).save(path)
