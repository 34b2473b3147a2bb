"""``bench planted-leak``: find and repair a leak that we planted in a labeller.

The labeller is trained on drawings in which eyeglasses and long hair go together, so it reads eyeglasses from hair. The benchmark asks
whether the audit finds this, and whether neuron edits repair it without training.

The audit sees the labeller and drawings in which both attributes are independent, as a user gets them from a joint target. It does not see
the truth. The truth judges the result: pairs of drawings that differ only in hair, and accuracy on natural portraits and their rare
combinations. Last, the labeller labels samples of the shipped unconditional model, as for a predictor's training set, before and after the
repair; there the judge stands for the truth.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...cli.console import progress_bar
from ...factory.portraits import ATTRIBUTES, draw_portraits
from ...factory.train_classifiers import draw_unseen, uniform_labels
from ...methods.core.trainer import AveragedSettings, AveragedTraining, Progress
from ...methods.datasets.augment import degrade
from ...methods.neuron_path.image_estimates import Estimate, estimate, readings
from ...methods.neuron_path.leakage_audit import Carriers, LeakageAudit, audit_leakage, leak_carriers
from ...methods.neuron_path.neuron_edits import NeuronEdit
from ...models.attribute_classifier import AttributeClassifier, VisionTransformer
from ...models.neuron_adapters import of_classifier
from ...shipped import weights
from ..adp.clothing import read_pictures, sample_portraits

SOURCE, TARGET = "hair", "eyeglasses"
AGREE = 0.97
"""Share of training drawings in which eyeglasses come with long hair, and no eyeglasses with short hair."""
STEPS, QUICK_STEPS, BATCH, POOL = 900, 500, 64, 16_000
TRAIN_SEED, AUDIT_SEED, PAIR_SEED = 770_000_000, 771_000_000, 772_000_000
SAMPLED_SEED = 773_000_000
AUDITED, CHOSEN, PAIRS, NATURAL, SAMPLED = 128, 256, 512, 2048, 1024


def correlated_labels(n: int, generator: torch.Generator, agree: float = AGREE) -> dict[str, Tensor]:
    """Draw labels int64 [n]: uniform, except that hair follows the eyeglasses."""
    labels = uniform_labels(n, generator)
    wears = labels[TARGET] == 0
    follows = torch.rand(n, generator=generator) < agree
    return {**labels, SOURCE: (wears == follows).long()}


def planted(folder: Path, steps: int, progress: Progress | None = None) -> AttributeClassifier:
    """Train the labeller on drawings in which the two attributes go together.

    Architecture and training are those of the shipped labeller. The training resumes in the folder.
    """
    images, labels = [], []
    for start in range(0, POOL, 2000):
        generator = torch.Generator().manual_seed(TRAIN_SEED + start)
        labels.append(correlated_labels(min(2000, POOL - start), generator))
        images.append((draw_portraits(labels[-1], generator) * 255).round().byte())
    pool, truth = torch.cat(images), {a: torch.cat([x[a] for x in labels]) for a in ATTRIBUTES}
    torch.manual_seed(TRAIN_SEED)
    net = VisionTransformer(ATTRIBUTES)
    settings = AveragedSettings(lr=1e-3, total=steps, seed=TRAIN_SEED, warmup=150, weight_decay=0.02, average=0.995)
    training = AveragedTraining(net, settings, folder)

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.randint(0, len(pool), (BATCH,), generator=generator)
        logits = net(net.preprocess(degrade(pool[index].float() / 255, generator)))
        return sum(F.cross_entropy(logits[a], truth[a][index], label_smoothing=0.01) for a in ATTRIBUTES)

    training.train(loss, progress)
    return training.ema.eval()


def independent(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw portraits float32 [n, 3, 32, 32] with independent attributes, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = uniform_labels(n, generator)
    return draw_portraits(labels, generator), labels


def hair_pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw pairs that differ only in hair, and return their true eyeglasses.

    Drawings are [2 n, 3, 32, 32], first all with short hair, then all with long hair; eyeglasses [2 n].
    """
    labels = uniform_labels(n, torch.Generator().manual_seed(seed))
    both = []
    for hair in (0, 1):
        labels = {**labels, SOURCE: torch.full((n,), hair)}
        both.append(draw_portraits(labels, torch.Generator().manual_seed(seed + 1)))
    return torch.cat(both), labels[TARGET].repeat(2)


def audited(model: AttributeClassifier, images: Tensor, bar: Progress | None = None) -> LeakageAudit:
    """Audit all attributes of a classifier."""
    return audit_leakage({a: of_classifier(model, a) for a in ATTRIBUTES}, model.preprocess(images), progress=bar)


def judged(model: AttributeClassifier, edit: NeuronEdit | None, pairs: int, natural: int) -> dict[str, Any]:
    """Measure the leak and the accuracy of a classifier under an edit.

    ``leak``: mean distance between the readings of two drawings that differ only in hair; ``changed``: share of pairs whose label differs;
    accuracies on these pairs, on natural portraits and on their rare combinations; ``source_accuracy``: accuracy of the hair labels.
    """
    net = of_classifier(model, TARGET)

    def read(images: Tensor, attribute: str = TARGET) -> Tensor:
        of = net if attribute == TARGET else of_classifier(model, attribute)
        return readings(of, model.preprocess(images), edit)

    images, truth = hair_pairs(pairs, PAIR_SEED)
    p = read(images)
    short, long = p.split(pairs)
    right = (p.argmax(1) == truth).float()
    portraits, labels = draw_unseen(natural)
    natural_right = (read(portraits).argmax(1) == labels[TARGET]).float()
    rare = (labels[TARGET] == 0) == (labels[SOURCE] == 0)
    return {
        "leak": bounds(estimate((long - short).abs().sum(1) / 2)),
        "changed": bounds(estimate((long.argmax(1) != short.argmax(1)).float())),
        "accuracy_independent": bounds(estimate(right)),
        "accuracy": bounds(estimate(natural_right)),
        "accuracy_rare": bounds(estimate(natural_right[rare])),
        "rare": int(rare.sum()),
        "source_accuracy": bounds(estimate((read(portraits, SOURCE).argmax(1) == labels[SOURCE]).float())),
    }


def sample_images(folder: Path, n: int) -> Tensor:
    """Sample plain images float32 [n, 3, 32, 32] of the shipped unconditional model.

    Finished samples of an earlier run are used again.
    """
    lines = sample_portraits(folder, "samples", n, SAMPLED_SEED)
    return read_pictures(folder / "samples", [line["file"] for line in lines])


def labelling_accuracy(model: AttributeClassifier, edit: NeuronEdit | None, images: Tensor, truth: dict[str, Tensor]) -> dict[str, Any]:
    """Measure the share of samples that get the judge's label.

    It is given for all samples, for each combination with the source, and for the ``rare`` combinations, which were almost missing in the
    labeller's training.
    """
    right = (readings(of_classifier(model, TARGET), model.preprocess(images), edit).argmax(1) == truth[TARGET]).float()
    rare = (truth[TARGET] == 0) == (truth[SOURCE] == 0)
    groups = {
        f"{a}/{b}": (truth[TARGET] == i) & (truth[SOURCE] == j)
        for i, a in enumerate(ATTRIBUTES[TARGET])
        for j, b in enumerate(ATTRIBUTES[SOURCE])
    }
    of = {"all": torch.ones_like(rare), "rare": rare, "common": ~rare} | groups
    return {name: [*bounds(estimate(right[rows])), int(rows.sum())] if rows.any() else None for name, rows in of.items()}


def bounds(e: Estimate) -> list[float]:
    """Return [mean, low, high]."""
    return [round(x, 5) for x in (e.mean, e.low, e.high)]


def audit_figures(audit: LeakageAudit) -> dict[str, Any]:
    """Collect an audit's figures of every pair, and its warnings."""
    return {
        "warnings": audit.warnings(),
        "flagged": [[x.source, x.target] for x in audit.flagged],
        "labels_changed": {
            f"{x.source} -> {x.target}": {"own": bounds(x.flips), "random": x.control_flips, "overlap": x.cosine} for x in audit.leaks
        },
    }


def mended(model: AttributeClassifier, images: Tensor) -> Carriers:
    """Find the neurons that carry the source into the target.

    The groups are the labeller's own readings of the source.
    """
    pixels = model.preprocess(images)
    groups = readings(of_classifier(model, SOURCE), pixels).argmax(1)
    return leak_carriers(of_classifier(model, TARGET), pixels, groups, SOURCE, TARGET)


def run(quick: bool = False, folder: Path | None = None) -> dict[str, Any]:
    """Plant the leak, audit, repair, and measure before and after.

    ``planted``, ``clean``: audits; ``before``, ``after``: the planted labeller as it is, and without the neurons that carry the leak;
    ``leak_left``: leak after / before; ``samples_labelled``: :func:`labelling_accuracy` before and after. The folder stores the training
    and the samples, and a later run resumes from it.
    """
    with tempfile.TemporaryDirectory() as made:
        work_folder = folder or Path(made)
        work_folder.mkdir(parents=True, exist_ok=True)
        model = planted(work_folder, QUICK_STEPS if quick else STEPS, progress_bar("training"))
        generated = sample_images(work_folder, SAMPLED // 4 if quick else SAMPLED)
    pairs, natural = (PAIRS // 2, NATURAL // 2) if quick else (PAIRS, NATURAL)
    images, _ = independent(CHOSEN, AUDIT_SEED)
    audit = audited(model, images[:AUDITED], progress_bar("audit, planted"))
    carriers = mended(model, images)
    before, after = (judged(model, edit, pairs, natural) for edit in (None, NeuronEdit(carriers.neurons)))
    truth = {a: p.argmax(1) for a, p in weights.classifier(weights.JUDGE).probabilities(generated).items()}
    edits = {"before": None, "after": NeuronEdit(carriers.neurons)}
    labels = {name: labelling_accuracy(model, edit, generated, truth) for name, edit in edits.items()}
    clean = audited(weights.classifier(), images[:AUDITED], progress_bar("audit, shipped"))
    return {
        "source": SOURCE,
        "target": TARGET,
        "agree": AGREE,
        "steps": QUICK_STEPS if quick else STEPS,
        "planted": audit_figures(audit),
        "clean": audit_figures(clean),
        "carriers": {
            "neurons": carriers.neurons.tolist(),
            "tried": carriers.tried,
            "gap_before": bounds(carriers.before),
            "gap_after": bounds(carriers.after),
        },
        "before": before,
        "after": after,
        "leak_left": after["leak"][0] / before["leak"][0],
        "accuracy_change": after["accuracy"][0] - before["accuracy"][0],
        "rare_accuracy_change": after["accuracy_rare"][0] - before["accuracy_rare"][0],
        "samples_labelled": labels,
        "seeds": {"training": TRAIN_SEED, "audit": AUDIT_SEED, "pairs": PAIR_SEED, "samples": SAMPLED_SEED},
        "notes": {"quick": "a shorter training: the leak is larger, and figures are indicative"} if quick else {},
    }
