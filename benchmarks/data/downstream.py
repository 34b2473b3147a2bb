"""``bench downstream``: test whether added images make a classifier fairer.

A classifier is trained on a skewed training set, with and without guided or steered images.

- **Task:** eyeglasses (yes, no), as perceived in drawn portraits. There are two skewed training sets of 1,000 portraits each. Their labels
  are the truth.

  - ``hair``: 97% of the portraits have long hair with eyeglasses or short hair without them, so a classifier can read eyeglasses from
    hair. About six portraits show eyeglasses and short hair.
  - ``skin_tone``: the world's 70/20/10 skin tones, with P(eyeglasses | light, medium, dark) = 0.50, 0.20, 0.05. About five portraits show
    eyeglasses and dark skin.

- **Generator:** the shipped unconditional model. It was trained on natural portraits, which have neither association: 20% eyeglasses, 30%
  long hair and the same skin tones. We therefore expect that plain images help already, most of all with ``hair``. All kinds of images
  have the same seeds. Guided and steered images aim at equal shares of all combinations of task and group.
- **Labels of generated images** come from the shipped labeller. It was trained on drawings without associations, so it stands for careful
  annotation. The judge takes no part.
- **Training sets:** ``skewed`` alone; with 512 ``plain``, ``guided`` or ``steered`` images; ``oversampled``: alone, with every combination
  of task and group equally often; ``plain-oversampled``: the same with plain images, which needs no guidance; ``drawn``: with 512 drawn
  images that follow the target exactly, as a perfect generator would. The difference between guided and drawn is the generator's.
- **Classifier:** the convolutional network of Train Attribute Classifier, with the same steps, batch, augmentations and seed for all sets.
  Nothing is tuned for a set or chosen by the test set.
- **Test set:** 6,000 drawn portraits with all combinations of task and group equally frequent, so accuracy is balanced accuracy. The images
  are drawn, so generated images have no advantage from being of the same kind.
- **Five repetitions**, each with its own skewed set, generated images and initial weights. ``[mean, low, high]`` is the 95% interval by
  Student's t over the repetitions, which share the test set. ``cut``: part of the skewed set's equalised-odds difference that disappears.
  ``gain``: increase of accuracy. Both are paired by repetition.

History: we first tried ``skin_tone`` with 500 steps. Its first repetitions showed two things: the skewed set alone varied from 0.27 to 0.95
by seed, because the training was too short, and guided images of dark skin with eyeglasses are blurred. We therefore took 1,000 steps and
added ``hair``, before we had seen any of its figures. We report both; the contract's rows are those of ``hair``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ...factory.portraits import ATTRIBUTES, draw_portraits, sample_labels
from ...factory.train_classifiers import uniform_labels
from ...methods.datasets.classifier_training import ClassifierSettings, Examples, decisions, train_classifier
from ...metrics.classifier_fairness import measure_classifier
from ..core.stages import load_or_make
from .downstream_images import FIRST_SEED, KINDS, PLAIN, SEEDS_APART, ImageSetSampler
from .training_sets import training_sets

TASK = "eyeglasses"
HAIR, SKIN_TONE = SKEWS = ("hair", "skin_tone")
"""Groups; each of the two skewed sets is named after its group."""
AGREE = 0.97
"""In the first set, share of portraits in which long hair goes with eyeglasses and short hair with none."""
P_YES = (0.50, 0.20, 0.05)
"""In the second set, P(eyeglasses | skin tone)."""
SKEWED, OVERSAMPLED, PLAIN_OVERSAMPLED, DRAWN = "skewed", "oversampled", "plain-oversampled", "drawn"
SETS = (SKEWED, *KINDS, OVERSAMPLED, PLAIN_OVERSAMPLED, DRAWN)
SKEWED_SEED, DRAWN_SEED, TEST_SEED = 773_000_000, 774_000_000, 775_000_000
SKEWED_SIZE = 1000
SETTINGS = ClassifierSettings(architecture="cnn", image_size=32, steps=1000, batch=32)
FIGURES = ("accuracy", "worst_group_accuracy", "equalised_odds_difference", "demographic_parity_difference")
RATES = ("true_positive", "false_positive")


@dataclass(frozen=True)
class Size:
    """Sizes of a run."""

    skews: tuple[str, ...] = SKEWS
    """Skewed sets to measure."""
    repetitions: int = 5
    """Repetitions with different seeds."""
    images: int = 512
    """Generated images to add."""
    test: int = 6000
    """Drawn test portraits."""
    steps: int = SETTINGS.steps
    """Training steps of the classifier."""


FULL, QUICK = Size(), Size((HAIR,), repetitions=2, images=256, test=3000, steps=400)


def target_of(group: str) -> str:
    """Write the target of guided and steered images."""
    return f"{TASK} x {group}: uniform"


def skewed_set(group: str, repetition: int) -> Examples:
    """Draw the skewed set of a repetition."""
    generator = torch.Generator().manual_seed(SKEWED_SEED + 100 * SKEWS.index(group) + repetition)
    labels = sample_labels(SKEWED_SIZE, generator)
    chance = torch.rand(SKEWED_SIZE, generator=generator)
    if group == HAIR:
        wears = labels[TASK] == 0
        labels = {**labels, HAIR: (wears == (chance < AGREE)).long()}
    else:
        labels = {**labels, TASK: (chance >= torch.tensor(P_YES)[labels[SKIN_TONE]]).long()}
    return examples(_drawn(labels, generator), labels, group, generated=False)


def balanced_portraits(group: str, n: int, seed: int) -> Examples:
    """Draw portraits with every combination of task and group equally often.

    If n does not divide evenly, the first combinations get one more.
    """
    generator = torch.Generator().manual_seed(seed)
    k = len(ATTRIBUTES[group])
    cell = torch.arange(n) % (len(ATTRIBUTES[TASK]) * k)
    labels = {**uniform_labels(n, generator), TASK: cell // k, group: cell % k}
    return examples(_drawn(labels, generator), labels, group, generated=True)


def _drawn(labels: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    return (draw_portraits(labels, generator) * 255).round().byte()


def examples(images: Tensor, labels: dict[str, Tensor], group: str, generated: bool) -> Examples:
    """Put images and the labels of task and group into one set."""
    known = {a: labels[a] for a in (TASK, group)}
    return Examples({a: ATTRIBUTES[a] for a in known}, images, known, torch.full((len(images),), generated))


def join_examples(parts: Iterable[Examples]) -> Examples:
    """Join several sets into one."""
    parts = list(parts)
    labels = {a: torch.cat([p.labels[a] for p in parts]) for a in parts[0].labels}
    return Examples(parts[0].attributes, torch.cat([p.images for p in parts]), labels, torch.cat([p.generated for p in parts]))


def task_only(data: Examples) -> Examples:
    """Remove the group's labels, because the classifier must not learn them."""
    return replace(data, attributes={TASK: data.attributes[TASK]}, labels={TASK: data.labels[TASK]})


def task_group_cells(data: Examples) -> Tensor:
    """Number the combination of task and group of every image, int64 [N].

    The group varies fastest.
    """
    (task, group) = data.labels.values()
    return task * len(list(data.attributes.values())[1]) + group


def oversampled(data: Examples, seed: int) -> Examples:
    """Repeat random rows until every combination of task and group is equally frequent."""
    cell = task_group_cells(data)
    generator, rows = torch.Generator().manual_seed(seed), []
    most = int(torch.bincount(cell).max())
    for c in cell.unique().tolist():
        members = (cell == c).nonzero().flatten()
        repeated = torch.randint(0, len(members), (most - len(members),), generator=generator)
        rows.append(torch.cat([members, members[repeated]]))
    index = torch.cat(rows)
    return replace(
        data, images=data.images[index], labels={a: y[index] for a, y in data.labels.items()}, generated=data.generated[index]
    )


class DownstreamBench:
    """Hold the sets of a run and train classifiers on them."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.sampler = ImageSetSampler()
        self.tests = {group: balanced_portraits(group, size.test, TEST_SEED) for group in size.skews}
        self._skewed: dict[tuple[str, int], Examples] = {}

    def training_set(self, group: str, name: str, repetition: int) -> Examples:
        """Make one of ``SETS``, with the labels of task and group."""
        if (group, repetition) not in self._skewed:
            self._skewed[group, repetition] = skewed_set(group, repetition)
        base, seed = self._skewed[group, repetition], DRAWN_SEED + 1000 * repetition
        if name == DRAWN:
            return join_examples([base, balanced_portraits(group, self.size.images, seed)])
        kind = kind_of(name)
        if kind is not None:
            made = self.sampler.made(self.folder, kind, target_of(group), repetition, self.size.images)
            base = join_examples([base, examples(made.images, made.labels, group, generated=True)])
        return oversampled(base, seed) if name in (OVERSAMPLED, PLAIN_OVERSAMPLED) else base

    def facts(self, group: str, name: str, repetition: int) -> dict[str, Any]:
        """Collect all facts that a training's figures depend on."""
        kind = kind_of(name)
        images = {} if kind is None else self.sampler.facts(kind, target_of(group), repetition, self.size.images)
        size = {k: v for k, v in asdict(self.size).items() if k not in ("skews", "repetitions")}
        return {"skew": group, "set": name, "repetition": repetition, "size": size, "settings": asdict(SETTINGS), "images": images}

    def measure(self, group: str, name: str, repetition: int) -> dict[str, Any]:
        """Train a classifier on a set and measure it on the test set."""
        data, test = self.training_set(group, name, repetition), self.tests[group]
        settings = replace(SETTINGS, steps=self.size.steps, seed=repetition)
        model = train_classifier(task_only(data), settings).model
        read = decisions(model, test.images)[TASK]
        report = measure_classifier(test.labels[TASK], read, test.labels[group], ATTRIBUTES[TASK], ATTRIBUTES[group])
        k = len(ATTRIBUTES[TASK]) * len(ATTRIBUTES[group])
        return {**report.to_dict(), "cells": torch.bincount(task_group_cells(data), minlength=k).tolist()}


def kind_of(name: str) -> str | None:
    """Return the kind of generated images in a set, None if it has none."""
    return PLAIN if name == PLAIN_OVERSAMPLED else name if name in KINDS else None


def over_repetitions(values: list[float], low: float = 0.0, high: float = 1.0) -> list[float | None]:
    """Return [mean, low, high], the 95% interval by Student's t.

    The interval stays within ``low`` and ``high``. A single value has no interval.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return [float(x.mean()), None, None]
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return [float(x.mean()), max(low, float(x.mean()) - half), min(high, float(x.mean()) + half)]


def value(figures: dict[str, Any], key: str) -> float:
    """Read a figure of one training."""
    return float(figures[key]["value"])


def row_of(runs: list[dict[str, Any]], base: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Summarise a training set over its repetitions and compare it with the skewed set.

    ``base``: runs of the skewed set, None for the skewed set itself.
    """
    row: dict[str, Any] = {key: over_repetitions([value(r, key) for r in runs]) for key in FIGURES}
    positive = ATTRIBUTES[TASK][0]
    row["by_group"] = {
        g["name"]: {
            "accuracy": over_repetitions([float(r["groups"][i]["accuracy"]["value"]) for r in runs]),
            **{k: over_repetitions([float(r["groups"][i]["by_class"][positive][k]["value"]) for r in runs]) for k in RATES},
        }
        for i, g in enumerate(runs[0]["groups"])
    }
    row["images_by_cell"] = np.mean([r["cells"] for r in runs], axis=0).tolist()
    row["by_repetition"] = {key: [value(r, key) for r in runs] for key in FIGURES}
    if base is not None:
        odds = [[value(r, "equalised_odds_difference") for r in x] for x in (runs, base)]
        cuts = [1 - a / b if b else 0.0 for a, b in zip(*odds, strict=True)]
        gains = [value(r, "accuracy") - value(b, "accuracy") for r, b in zip(runs, base, strict=True)]
        row |= {"cut": over_repetitions(cuts, -np.inf), "gain": over_repetitions(gains, -1.0)}
    return row


def downstream_result(results: dict[str, dict[str, list[dict[str, Any]]]], size: Size) -> dict[str, Any]:
    """Build the JSON object: the contract's rows, and all skews under ``by_skew``.

    The contract's rows are those of the first skew.
    """
    tables = {
        group: {name: row_of(runs, None if name == SKEWED else sets[SKEWED]) for name, runs in sets.items()}
        for group, sets in results.items()
    }
    first = next(iter(tables))
    return {
        **{name: {k: row[k] for k in (*FIGURES, "cut", "gain") if k in row} for name, row in tables[first].items()},
        "by_skew": tables,
        "chance": {g: [r["equalised_odds_difference"]["chance"] for r in sets[SKEWED]] for g, sets in results.items()},
        "cells": {g: [f"{t}/{x}" for t in ATTRIBUTES[TASK] for x in ATTRIBUTES[g]] for g in results},
        "task": TASK,
        "size": asdict(size),
        "settings": asdict(SETTINGS) | {"steps": size.steps},
        "seeds": {
            "skewed": SKEWED_SEED,
            "test": TEST_SEED,
            "sampling": [FIRST_SEED + SEEDS_APART * i for i in range(size.repetitions)],
        },
        "notes": {
            "rows": f"of the skew '{first}'; 'by_skew' has the others",
            "accuracy": f"on {size.test} drawn portraits, combinations of task and group equally frequent",
            "intervals": f"95% over {size.repetitions} repetitions (Student's t)",
            "cut": "1 - equalised odds difference / that of the skewed set alone, by repetition",
            "labels": "the shipped labeller labels generated images",
        },
    }


def run(quick: bool = False, folder: Path | None = None) -> dict[str, Any]:
    """Run all skews, sets and repetitions, and resume from ``folder`` (default: a temporary folder)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-downstream-") as temporary:
            return run(quick, Path(temporary))
    size = QUICK if quick else FULL
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    bench = DownstreamBench(folder, size)
    results: dict[str, dict[str, list[dict[str, Any]]]] = {g: {name: [] for name in SETS} for g in size.skews}
    for group in size.skews:
        for repetition in range(size.repetitions):
            for name in SETS:
                facts = bench.facts(group, name, repetition)
                part = f"{group}-{name}-{repetition}"
                figures = load_or_make(folder, part, facts, lambda g=group, n=name, r=repetition: bench.measure(g, n, r))
                results[group][name].append(figures)
    figures = downstream_result(results, size)
    draw_downstream(figures, folder / "downstream.png")
    return figures


def draw_downstream(figures: dict[str, Any], path: Path) -> None:
    """Draw the benchmark's figure."""
    from PIL import Image

    panels = {
        f"{TASK} by {group.replace('_', ' ')}": {name: (row["equalised_odds_difference"], row["accuracy"]) for name, row in table.items()}
        for group, table in figures["by_skew"].items()
    }
    size = figures["size"]
    note = f"{size['repetitions']} repetitions, 95% (Student's t); {size['test']} drawn test portraits, combinations equally frequent"
    Image.fromarray(training_sets(panels, "A skewed training set, with and without added images", note)).save(path)
