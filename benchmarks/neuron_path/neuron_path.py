"""``bench neuron-path``: measure the cost of finding paths, and the effect of paths.

Each part is stored in the folder and not repeated:

- time and memory at ViT-B's width with 17 tokens, for ours and for the naive algorithm (:mod:`.path_speed`);
- in a full run, ours at 197 tokens and at 24 layers; the naive time is computed from its number of passes;
- scores and effects of every method's paths in the shipped labeller, on samples of the shipped unconditional model; the judge gives the
  true classes.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...methods.neuron_path.neuron_baselines import ACTIVATION, GRADIENT, INFLUENCE, KNOWLEDGE, baseline_path
from ...methods.neuron_path.path_effects import DOUBLING, REMOVAL, PathEffectSettings, path_effects
from ...methods.neuron_path.path_settings import GAUSS_4, LOG_PROBABILITY, PROBABILITY, SEARCHES, PathSettings
from ...methods.neuron_path.search import find_paths
from ...models.neuron_adapters import of_classifier
from ...shipped import weights
from ..adp.clothing import read_pictures, sample_portraits
from ..core.stages import load_or_make
from .path_speed import Shape, compare_with_naive, extrapolate

SEED = 880_000_000
"""First seed of the samples. Training, calibration and tuning used other seeds."""
SHOWN = (GRADIENT, KNOWLEDGE, INFLUENCE, ACTIVATION)
MAIN = "eyeglasses"


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run all parts. ``folder``: where parts are stored (default: a temporary folder)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-neuron-path-") as temporary:
            return run(quick, Path(temporary))
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, min(2, os.cpu_count() or 1)))
    torch.set_num_threads(threads)
    shape = Shape(images=2)
    facts = {"shape": asdict(shape), "threads": threads, "weights": "std 0.02"}
    speed = load_or_make(folder, "speed", facts, lambda: compare_with_naive(shape, threads))
    larger = {}
    if not quick:
        for name, big in (("197 tokens", Shape(side=14)), ("197 tokens, 24 layers", Shape(side=14, depth=24))):
            facts = {"shape": asdict(big), "threads": threads}
            part = name.replace(", ", "-").replace(" ", "-")
            larger[name] = load_or_make(folder, part, facts, lambda s=big: extrapolate(s, threads, GAUSS_4))
    n = 64 if quick else 256
    attributes = (MAIN,) if quick else (MAIN, "hair", "skin_tone", "profession")
    lines = sample_portraits(folder, "plain", n, SEED)
    effects = {
        f"{attribute}, {what}": load_or_make(
            folder, f"effects-{attribute}-{what}", {"n": n, "seed": SEED}, lambda a=attribute, o=what: labeller_effects(folder, lines, a, o)
        )
        for attribute in attributes
        for what in ((PROBABILITY,) if quick else (PROBABILITY, LOG_PROBABILITY))
    }
    return neuron_path_result(speed, larger, effects, n)


def labeller_effects(folder: Path, lines: list[dict[str, Any]], attribute: str, what: str) -> dict[str, Any]:
    """Remove and double each method's paths for the class that the labeller sees.

    Returns method -> figures with intervals.
    """
    labeller, judge = weights.classifier(), weights.classifier(weights.JUDGE)
    images = read_pictures(folder / "plain", [line["file"] for line in lines])
    net = of_classifier(labeller, attribute)
    pixels = labeller.preprocess(images)
    with torch.no_grad():
        targets = net.run(0, net.embed(pixels)).argmax(1)
        truth = judge.probabilities(images)[attribute].argmax(1)
    paths = {s: find_paths(net, pixels, targets, PathSettings(s, objective=what)).path for s in SEARCHES}
    paths |= {kind: baseline_path(net, pixels, targets, kind, PathSettings(objective=what)) for kind in SHOWN}
    by_method: dict[str, Any] = {}
    for effect in path_effects(net, pixels, targets, paths, PathEffectSettings(PathSettings(objective=what)), truth):
        figures = {k: [e.mean, e.low, e.high] for k, e in effect.figures().items()}
        scores = {k: figures.pop(k) for k in ("joint", "additive")}
        by_method.setdefault(effect.method, scores)[effect.operation] = figures
    return by_method


def neuron_path_result(speed: dict[str, Any], larger: dict[str, Any], effects: dict[str, Any], n: int) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them."""
    main = next(iter(effects.values()))
    methods = [m for m in main if isinstance(main[m], dict)]
    return {
        "model": f"random ViT, {speed['depth']} layers, width 768, perceptron 3072, {speed['tokens']} tokens",
        **{k: speed[k] for k in ("images", "paths_equal_share", "speedup_left20", "speedup_gauss4", "jas_ratio_to_activation", "peak_mb")},
        "removal": {m: main[m][REMOVAL]["change"][0] for m in methods},
        "enhancement": {m: main[m][DOUBLING]["change"][0] for m in methods},
        "speed": speed,
        "larger": larger,
        "labeller": effects,
        "labeller_images": n,
        "seeds": [SEED],
        "notes": {
            "peak_mb": "on top of the loaded model, each side in its own process",
            "removal": f"change of the probability of the class that the shipped labeller sees, {next(iter(effects))}, {n} plain samples",
            **({"larger": "the naive time is computed: number of passes in its loops x seconds of one pass"} if larger else {}),
        },
    }
