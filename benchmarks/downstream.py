"""``bench downstream``: does a classifier become fairer when guided or steered images are added to a skewed training set?

Design, fixed before the first figure of a generated image was seen:

- **Task** eyeglasses (yes, no); **groups** skin tones (light, medium, dark), as perceived in the drawing.
- **Skewed set**: 1,000 drawn portraits with the world's 70/20/10 skin tones, in which eyeglasses go with light skin: P(yes | skin tone) =
  0.50, 0.20, 0.05, so that about five of the thousand show dark skin with eyeglasses. Its labels are the truth.
- **Generator**: the shipped unconditional model, trained on natural portraits: it shares the imbalance of skin tones (and has 20%
  eyeglasses) and not the association, so that plain images can be expected to help already. All three kinds are sampled with the same
  seeds; guided and steered ones aim at "eyeglasses x skin_tone: uniform".
- **Labels of generated images** are what the shipped labeller reads. (It was trained on drawings in which nothing goes together, so it
  plays the part of careful annotation. ``guided-assigned`` takes the classes that guidance assigned instead, with the misses as errors.)
  The judge takes no part.
- **Training sets**: ``skewed`` alone; with 512 ``plain``, ``guided`` or ``steered`` images; ``oversampled``: alone, every combination of
  eyeglasses and skin tone drawn equally often; ``plain-oversampled``: the same with plain images. ``drawn``: with 512 drawn images that
  follow the target exactly, what a perfect generator would add.
- **Classifier**: the convolutional network that Train Attribute Classifier makes, the same steps, batch, augmentations and seed for all;
  nothing is tuned for a set or chosen by the test set.
- **Test set**: 6,000 drawn portraits, the six combinations equally frequent: accuracy there is balanced accuracy. Drawn, so generated
  images have no advantage of being of its kind.
- **Five repetitions**, each with a skewed set, generated images and initial weights of its own. ``[mean, low, high]``: 95% by Student's t
  over the repetitions (all share the test set, 1,000 images of every combination). ``cut``: what part of the skewed set's equalised-odds
  difference is gone, by repetition, and ``gain`` in accuracy, both paired.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..embedded.portraits import ATTRIBUTES, draw, sample_labels
from ..embedded.train_classifiers import uniform_labels
from ..methods.classifier_training import ClassifierSettings, Examples, decisions, train_classifier
from ..metrics.classifier_fairness import measure_classifier
from .downstream_images import FIRST_SEED, KINDS, SEEDS_APART, Made, Sampler
from .stages import kept

TASK, GROUP = "eyeglasses", "skin_tone"
TARGET = f"{TASK} x {GROUP}: uniform"
P_YES = (0.50, 0.20, 0.05)
"""P(eyeglasses | skin tone) in the skewed set."""
SKEWED, OVERSAMPLED, PLAIN_OVERSAMPLED, ASSIGNED, DRAWN = "skewed", "oversampled", "plain-oversampled", "guided-assigned", "drawn"
SETS = (SKEWED, *KINDS, OVERSAMPLED, PLAIN_OVERSAMPLED, ASSIGNED, DRAWN)
SKEWED_SEED, DRAWN_SEED, TEST_SEED = 773_000_000, 774_000_000, 775_000_000
SKEWED_SIZE = 1000
SETTINGS = ClassifierSettings(architecture="cnn", image_size=32, steps=500, batch=32)
FIGURES = {
    "accuracy": "accuracy",
    "worst_group_accuracy": "worst_group_accuracy",
    "equalised_odds_difference": "equalised_odds_difference",
    "demographic_parity_difference": "demographic_parity_difference",
}


@dataclass(frozen=True)
class Size:
    """``images``: generated ones that are added; ``test``: drawn ones."""

    repetitions: int = 5
    images: int = 512
    test: int = 6000
    steps: int = SETTINGS.steps


FULL, QUICK = Size(), Size(repetitions=2, images=256, test=3000, steps=300)


def skewed(repetition: int) -> Examples:
    """The skewed set of a repetition."""
    generator = torch.Generator().manual_seed(SKEWED_SEED + repetition)
    labels = sample_labels(SKEWED_SIZE, generator)
    wears = torch.rand(SKEWED_SIZE, generator=generator) < torch.tensor(P_YES)[labels[GROUP]]
    labels = {**labels, TASK: (~wears).long()}
    return examples(drawn(labels, generator), labels, generated=False)


def balanced(n: int, seed: int) -> Examples:
    """Drawn portraits, of every combination of task and group as many (those left over go to the first ones)."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.arange(n) % (len(ATTRIBUTES[TASK]) * len(ATTRIBUTES[GROUP]))
    labels = uniform_labels(n, generator)
    labels = {**labels, TASK: cell // len(ATTRIBUTES[GROUP]), GROUP: cell % len(ATTRIBUTES[GROUP])}
    return examples(drawn(labels, generator), labels, generated=True)


def drawn(labels: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Drawings uint8 [N, 3, 32, 32]."""
    return (draw(labels, generator) * 255).round().byte()


def examples(images: Tensor, labels: dict[str, Tensor], generated: bool) -> Examples:
    """With the labels of task and group."""
    known = {a: labels[a] for a in (TASK, GROUP)}
    return Examples({a: ATTRIBUTES[a] for a in known}, images, known, torch.full((len(images),), generated))


def assigned(made: Made) -> Examples:
    """Guided images with the classes that they were assigned for labels."""
    k = len(ATTRIBUTES[GROUP])
    return examples(made.images, {TASK: made.cells // k, GROUP: made.cells % k}, generated=True)


def together(parts: Iterable[Examples]) -> Examples:
    """One set of several."""
    parts = list(parts)
    labels = {a: torch.cat([p.labels[a] for p in parts]) for a in (TASK, GROUP)}
    return Examples(parts[0].attributes, torch.cat([p.images for p in parts]), labels, torch.cat([p.generated for p in parts]))


def task_only(given: Examples) -> Examples:
    """Without the group's labels, which the classifier is not to learn."""
    return Examples({TASK: given.attributes[TASK]}, given.images, {TASK: given.labels[TASK]}, given.generated)


def oversampled(given: Examples, seed: int) -> Examples:
    """Every combination of task and group as often: rows of the smaller ones are repeated, at random, up to the number of the largest."""
    cell = given.labels[TASK] * len(ATTRIBUTES[GROUP]) + given.labels[GROUP]
    generator, rows = torch.Generator().manual_seed(seed), []
    most = int(torch.bincount(cell).max())
    for c in cell.unique().tolist():
        there = (cell == c).nonzero().flatten()
        more = torch.randint(0, len(there), (most - len(there),), generator=generator)
        rows.append(torch.cat([there, there[more]]))
    index = torch.cat(rows)
    labels = {a: y[index] for a, y in given.labels.items()}
    return Examples(given.attributes, given.images[index], labels, given.generated[index])


class Bench:
    """The sets of a run, and what is trained on them."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.sampler = Sampler(TARGET)
        self.test = balanced(size.test, TEST_SEED)

    def training_set(self, name: str, repetition: int) -> Examples:
        """One of ``SETS``, with the labels of task and group."""
        base, seed = skewed(repetition), DRAWN_SEED + 1000 * repetition
        if name == SKEWED:
            return base
        if name == OVERSAMPLED:
            return oversampled(base, seed)
        if name == DRAWN:
            return together([base, balanced(self.size.images, seed)])
        made = self.sampler.made(self.folder, source_of(name), repetition, self.size.images)
        if name == ASSIGNED:
            return together([base, assigned(made)])
        both = together([base, examples(made.images, made.labels, generated=True)])
        return oversampled(both, seed) if name == PLAIN_OVERSAMPLED else both

    def facts(self, name: str, repetition: int) -> dict[str, Any]:
        """What the figures of a training depend on."""
        source = source_of(name)
        images = {} if source is None else self.sampler.facts(source, repetition, self.size.images)
        return {"set": name, "repetition": repetition, "size": asdict(self.size), "settings": asdict(SETTINGS), "images": images}

    def measure(self, name: str, repetition: int) -> dict[str, Any]:
        """Train on a set and judge by the test set."""
        given = self.training_set(name, repetition)
        settings = ClassifierSettings(**{**asdict(SETTINGS), "steps": self.size.steps, "seed": repetition})
        model = train_classifier(task_only(given), settings).model
        read = decisions(model, self.test.images)[TASK]
        found = measure_classifier(self.test.labels[TASK], read, self.test.labels[GROUP], ATTRIBUTES[TASK], ATTRIBUTES[GROUP])
        cell = given.labels[TASK] * len(ATTRIBUTES[GROUP]) + given.labels[GROUP]
        return {**found.to_dict(), "cells": torch.bincount(cell, minlength=6).tolist()}


def source_of(name: str) -> str | None:
    """The kind of generated images that a set holds."""
    return {PLAIN_OVERSAMPLED: "plain", ASSIGNED: "guided"}.get(name, name if name in KINDS else None)


def over_repetitions(values: list[float], low: float = 0.0, high: float = 1.0) -> list[float | None]:
    """[mean, low, high]: 95% by Student's t, within the bounds that the quantity has; no interval of a single value."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return [float(x.mean()), None, None]
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return [float(x.mean()), max(low, float(x.mean()) - half), min(high, float(x.mean()) + half)]


def value(figures: dict[str, Any], key: str) -> float:
    """A figure of one training."""
    return float(figures[key]["value"])


def composed(found: dict[str, list[dict[str, Any]]], size: Size) -> dict[str, Any]:
    """The JSON object: a row per training set, and what it is beside the skewed set alone."""
    rows: dict[str, Any] = {}
    base = found[SKEWED]
    for name, runs in found.items():
        row: dict[str, Any] = {key: over_repetitions([value(r, key) for r in runs]) for key in FIGURES}
        row["by_group"] = {
            g["name"]: {
                kind: over_repetitions([_rate(r, i, kind) for r in runs]) for kind in ("accuracy", "true_positive", "false_positive")
            }
            for i, g in enumerate(runs[0]["groups"])
        }
        row["cells"] = np.mean([r["cells"] for r in runs], axis=0).tolist()
        if name != SKEWED:
            odds = [[value(r, "equalised_odds_difference") for r in x] for x in (runs, base)]
            cuts = [1 - a / b if b else 0.0 for a, b in zip(*odds, strict=True)]
            gains = [value(r, "accuracy") - value(b, "accuracy") for r, b in zip(runs, base, strict=True)]
            row |= {"cut": over_repetitions(cuts, -np.inf), "gain": over_repetitions(gains, -1.0), "cuts": cuts}
        rows[name] = row
    return {
        **rows,
        "repetitions": {name: [{k: value(r, k) for k in FIGURES} for r in runs] for name, runs in found.items()},
        "chance": base[0]["equalised_odds_difference"]["chance"],
        "task": TASK,
        "group": GROUP,
        "cells": [f"{t}/{g}" for t in ATTRIBUTES[TASK] for g in ATTRIBUTES[GROUP]],
        "size": asdict(size),
        "settings": asdict(SETTINGS) | {"steps": size.steps},
        "seeds": {
            "skewed": SKEWED_SEED,
            "test": TEST_SEED,
            "sampling": [FIRST_SEED + SEEDS_APART * i for i in range(size.repetitions)],
        },
        "notes": {
            "accuracy": f"of {size.test} drawn portraits with the six combinations equally frequent",
            "intervals": f"95% over {size.repetitions} repetitions (Student's t)",
            "cut": "1 - equalised odds difference / that of the skewed set alone, by repetition",
            "labels": "generated images: the shipped labeller; guided-assigned: the classes that guidance assigned",
        },
    }


def _rate(figures: dict[str, Any], group: int, kind: str) -> float:
    g = figures["groups"][group]
    return float((g["accuracy"] if kind == "accuracy" else g["by_class"][ATTRIBUTES[TASK][0]][kind])["value"])


def run(quick: bool = False, folder: Path | None = None) -> dict[str, Any]:
    """All sets and repetitions. ``folder``: where images and figures are kept, and gone on with (default: a temporary one)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-downstream-") as place:
            return run(quick, Path(place))
    size = QUICK if quick else FULL
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    bench = Bench(folder, size)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SETS}
    for repetition in range(size.repetitions):
        for name in SETS:
            part = kept(folder, f"{name}-{repetition}", bench.facts(name, repetition), lambda n=name, r=repetition: bench.measure(n, r))
            found[name].append(part)
    return composed(found, size)
