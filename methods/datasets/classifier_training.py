"""Train an attribute classifier on labelled images, real and generated.

This is the last part of Balancing Act (CVPR 2024), where balanced generated data make a fairer classifier. Every image is drawn with a
weight: 1 for a real image, ``generated_weight`` for a generated one. If attributes are to be balanced, every combination of their classes
is drawn equally often.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.attribute_classifier import AttributeClassifier, ConvNet, VisionTransformer, VitSizes, save_classifier
from ..core.trainer import AveragedSettings, AveragedTraining, Progress
from .augment import QUALITY, augmentation

CNN, VIT = ARCHITECTURES = ("cnn", "vit")
UNKNOWN = -1
"""Label of an image whose class is not known; it teaches nothing about that attribute."""
WIDTHS = (16, 32, 64, 96, 128, 160)
SIZES = (32, 64, 128, 224)


@dataclass(frozen=True)
class ClassifierSettings:
    """Set how an attribute classifier is trained."""

    architecture: str = CNN
    """Kind of network, one of ``ARCHITECTURES``."""
    image_size: int = 64
    """Pixels per side that the network sees, one of ``SIZES``."""
    steps: int = 1000
    """Number of steps."""
    batch: int = 64
    """Images per step."""
    lr: float = 2e-3
    """Highest learning rate."""
    augment: str = QUALITY
    """How images are changed before the network sees them, see :mod:`.augment`."""
    generated_weight: float = 1.0
    """How often a generated image is drawn, if a real one is drawn once."""
    balance: tuple[str, ...] = ()
    """Attributes whose combinations of classes are drawn equally often."""
    seed: int = 0
    """Seed of all random numbers."""


@dataclass(frozen=True)
class Examples:
    """Hold labelled images."""

    attributes: dict[str, tuple[str, ...]]
    """Attribute -> names of its K classes."""
    images: Tensor
    """Pixels, uint8 [N, 3, S, S]."""
    labels: dict[str, Tensor]
    """Attribute -> class indices, int64 [N]; ``UNKNOWN`` without a label."""
    generated: Tensor
    """Whether an image was generated, bool [N]."""

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """Return a digest of the images and their labels."""
        digest = hashlib.sha256(json.dumps({a: list(c) for a, c in self.attributes.items()}, sort_keys=True).encode())
        for tensor in (self.images, self.generated, *(self.labels[a] for a in sorted(self.labels))):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Trained:
    """Hold a trained classifier and its figures."""

    model: AttributeClassifier
    """Network with averaged weights, in the precision in which they are saved."""
    log: list[dict[str, float]]
    """Entries of the training's log."""
    held_out: dict[str, dict[str, Any]]
    """Attribute -> ``accuracy``, ``n`` and ``by_class`` on held-out images; empty without any."""
    info: dict[str, Any] = field(default_factory=dict)
    """Settings and data, for the file."""


def train_classifier(
    examples: Examples,
    settings: ClassifierSettings,
    held_out: Examples | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """Train a new classifier.

    ``folder``: gets a folder with checkpoints, named after settings and data, from which the same training resumes; None keeps none.
    ``progress`` may raise, which interrupts and leaves a checkpoint. Raises ValueError for settings out of range, images of another size,
    and an attribute of which fewer than two classes have examples.
    """
    check(examples, settings)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-classifier-") as temporary:
            return train_classifier(examples, settings, held_out, Path(temporary), progress, device)
    with torch.inference_mode(False), torch.enable_grad():
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            net = new_classifier(settings, examples.attributes).to(device).train()
        warmup = max(1, min(100, settings.steps // 10))
        # An average over much of a short training would be one of its beginnings.
        average = min(0.999, 1 - 10 / settings.steps) if settings.steps > 10 else 0.0
        averaged = AveragedSettings(settings.lr, settings.steps, settings.seed, warmup, weight_decay=0.02, average=average)
        training = AveragedTraining(net, averaged, folder / training_name(examples, settings))
        augment, weights = augmentation(settings.augment), drawing_weights(examples, settings)

        def loss(generator: torch.Generator) -> Tensor:
            index = torch.multinomial(weights, settings.batch, replacement=True, generator=generator)
            images = examples.images[index].to(device).float() / 255
            seed = int(torch.randint(0, 2**31, (1,), generator=generator))
            logits = net(net.preprocess(augment(images, seed)))
            return _loss(logits, {a: y[index].to(device) for a, y in examples.labels.items()})

        training.train(loss, progress, every=max(1, settings.steps // 100))
        model = training.ema.cpu().eval()
        for weight in model.parameters():
            weight.copy_(weight.half().float())
    figures = held_out_accuracy(model, held_out) if held_out is not None and len(held_out) else {}
    return Trained(model, training.log, figures, _info(examples, settings, held_out, training.elapsed()))


def save_trained(trained: Trained, path: Path) -> None:
    """Write a classifier, with its training data and its accuracy on held-out images."""
    save_classifier(trained.model, path, {"info": json.dumps({**trained.info, "held_out_accuracy": trained.held_out})})


def training_name(examples: Examples, settings: ClassifierSettings) -> str:
    """Return the name of a training's folder, made of all that it depends on."""
    facts = json.dumps([asdict(settings), examples.digest()], sort_keys=True)
    return f"{settings.architecture}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def new_classifier(settings: ClassifierSettings, attributes: Mapping[str, tuple[str, ...]]) -> AttributeClassifier:
    """Make an untrained network.

    A convolutional one has a stage more for every doubling of the size above 32. The patches of a vision transformer make a grid of
    8 x 8 (14 x 14 at 224).
    """
    size = settings.image_size
    if settings.architecture == CNN:
        return ConvNet(attributes, size, WIDTHS[: 3 + max(0, (size // 32).bit_length() - 1)])
    return VisionTransformer(attributes, size, VitSizes(patch=16 if size == 224 else size // 8))


def drawing_weights(examples: Examples, settings: ClassifierSettings) -> Tensor:
    """Return how often every image is drawn, float64 [N], summing to 1.

    Raises ValueError if nothing is left to draw, or if an attribute to be balanced is unknown or has unlabelled images.
    """
    weights = torch.where(examples.generated, settings.generated_weight, 1.0).double()
    if weights.sum() <= 0:
        raise ValueError("all images are generated and generated_weight is 0, so nothing is left to train on: raise generated_weight.")
    cell = torch.zeros(len(examples), dtype=torch.long)
    for attribute in settings.balance:
        if attribute not in examples.labels:
            raise ValueError(
                f"'{attribute}' cannot be balanced, because the images have no such labels: choose among {', '.join(examples.labels)}."
            )
        missing = int((examples.labels[attribute] == UNKNOWN).sum())
        if missing:
            raise ValueError(f"'{attribute}' cannot be balanced, because {missing} images have no label of it: label them or leave it out.")
        cell = cell * len(examples.attributes[attribute]) + examples.labels[attribute]
    if settings.balance:
        total = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).index_add_(0, cell, weights)
        weights = torch.where(total[cell] > 0, weights / total[cell].clamp(min=1e-300), 0.0)
    return weights / weights.sum()


def held_out_accuracy(model: AttributeClassifier, examples: Examples) -> dict[str, dict[str, Any]]:
    """Measure a classifier: attribute -> ``accuracy``, ``n`` and ``by_class``.

    ``by_class``: class -> share of its images that are read as it (None without any).
    """
    figures: dict[str, dict[str, Any]] = {}
    for attribute, read in decisions(model, examples.images).items():
        classes, truth = model.attributes[attribute], examples.labels.get(attribute)
        known = torch.zeros(0, dtype=torch.bool) if truth is None else truth != UNKNOWN
        if not known.any():
            continue
        right = read[known] == truth[known]
        of_class = [right[truth[known] == c] for c in range(len(classes))]
        by_class = {c: float(r.float().mean()) if len(r) else None for c, r in zip(classes, of_class, strict=True)}
        figures[attribute] = {"accuracy": float(right.float().mean()), "n": len(right), "by_class": by_class}
    return figures


@torch.no_grad()
def decisions(model: AttributeClassifier, images: Tensor, batch: int = 256) -> dict[str, Tensor]:
    """Return the most probable classes of images.

    uint8 [N, 3, H, W] -> attribute -> int64 [N].
    """
    parts = [model.probabilities(chunk.float() / 255) for chunk in images.split(batch)]
    return {a: torch.cat([p[a] for p in parts]).argmax(-1) for a in model.attributes}


def check(examples: Examples, settings: ClassifierSettings) -> None:
    """Raise ValueError if a training is not possible."""
    s = settings
    if s.architecture not in ARCHITECTURES or s.image_size not in SIZES:
        raise ValueError(
            f"a classifier is one of {', '.join(ARCHITECTURES)} and sees {', '.join(map(str, SIZES))} pixels; met '{s.architecture}' and "
            f"{s.image_size}."
        )
    if s.steps < 1 or s.batch < 1 or not s.generated_weight >= 0 or not s.lr > 0:
        raise ValueError(f"steps and batch are 1 or more, weights 0 or more; met steps={s.steps}, batch={s.batch}, {s.generated_weight}.")
    if tuple(examples.images.shape[1:]) != (3, s.image_size, s.image_size) or examples.images.dtype != torch.uint8:
        raise ValueError(f"expected images uint8 [N, 3, {s.image_size}, {s.image_size}]; met {list(examples.images.shape)}.")
    if not examples.attributes or not len(examples):
        raise ValueError("there are no labelled images to train on: save some first.")
    drawn = drawing_weights(examples, s) > 0
    for attribute, classes in examples.attributes.items():
        present = set(examples.labels[attribute][drawn].tolist()) - {UNKNOWN}
        missing = [c for i, c in enumerate(classes) if i not in present]
        if missing:
            raise ValueError(
                f"no image shows '{missing[0]}' of '{attribute}', so a classifier cannot learn it: add images of this class, or leave "
                "the attribute out."
            )


def _loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    total = next(iter(logits.values())).sum() * 0.0
    for attribute, out in logits.items():
        known = labels[attribute] != UNKNOWN
        if known.any():
            total = total + F.cross_entropy(out[known], labels[attribute][known], label_smoothing=0.01)
    return total


def _info(examples: Examples, settings: ClassifierSettings, held_out: Examples | None, seconds: float) -> dict[str, Any]:
    counts = {a: counted(examples.labels[a], c) for a, c in examples.attributes.items()}
    return {
        "settings": asdict(settings),
        "images": len(examples),
        "generated": int(examples.generated.sum()),
        "held_out": 0 if held_out is None else len(held_out),
        "counts": counts,
        "seconds": round(seconds, 1),
    }


def counted(labels: Tensor, classes: Sequence[str]) -> dict[str, int]:
    """Count the images of every class."""
    return dict(zip(classes, torch.bincount(labels[labels != UNKNOWN], minlength=len(classes)).tolist(), strict=True))
