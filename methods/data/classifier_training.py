"""Train an attribute classifier on labelled images, real and generated: the end of Balancing Act (CVPR 2024), where balanced generated
data make a fairer classifier.

Every image is drawn with a weight: a generated one with ``generated_weight`` where a real one has 1, and, where attributes are named to be
balanced, every combination of their classes as often as every other.
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
from ..core.trainer import Progress, TrainState
from .augment import QUALITY, augmentation

CNN, VIT = ARCHITECTURES = ("cnn", "vit")
UNKNOWN = -1
"""Label of an image that an attribute was not read for; it teaches nothing about that attribute."""
WIDTHS = (16, 32, 64, 96, 128, 160)
SIZES = (32, 64, 128, 224)


@dataclass(frozen=True)
class ClassifierSettings:
    """``image_size``: pixels that the network sees, one of ``SIZES``; ``augment``: see :mod:`.augment`; ``balance``: attributes."""

    architecture: str = CNN
    image_size: int = 64
    steps: int = 1000
    batch: int = 64
    lr: float = 2e-3
    augment: str = QUALITY
    generated_weight: float = 1.0
    balance: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Labelled images. attributes: name -> K class names; images uint8 [N, 3, S, S]; labels: attribute -> int64 [N], class indices or -1
    where it is not known; generated: bool [N]."""

    attributes: dict[str, tuple[str, ...]]
    images: Tensor
    labels: dict[str, Tensor]
    generated: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> str:
        """Changes whenever the images or what is said of them do."""
        found = hashlib.sha256(json.dumps({a: list(c) for a, c in self.attributes.items()}, sort_keys=True).encode())
        for tensor in (self.images, self.generated, *(self.labels[a] for a in sorted(self.labels))):
            found.update(str(tuple(tensor.shape)).encode())
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class Trained:
    """``model``: averaged weights in the precision in which they are saved; ``log``: the training's; ``held_out``: attribute ->
    ``accuracy``, ``n`` and ``by_class`` on images that took no part (empty without any); ``info``: settings and data, for the file."""

    model: AttributeClassifier
    log: list[dict[str, float]]
    held_out: dict[str, dict[str, Any]]
    info: dict[str, Any] = field(default_factory=dict)


def train_classifier(
    examples: Examples,
    settings: ClassifierSettings,
    held_out: Examples | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """Train a new classifier. ``folder``: below which checkpoints are kept, in one named after settings and data, so that the same training
    goes on where it stopped (None: none are kept). ``progress`` may raise, which interrupts and leaves a checkpoint.

    Raises ValueError, in a sentence, for settings out of range, images of another size, and an attribute of which fewer than two classes
    have examples.
    """
    check(examples, settings)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-classifier-") as place:
            return train_classifier(examples, settings, held_out, Path(place), progress, device)
    with torch.inference_mode(False), torch.enable_grad():
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            net = new_classifier(settings, examples.attributes).to(device).train()
        warmup = max(1, min(100, settings.steps // 10))
        # An average over much of a short training would be one of its beginnings.
        average = min(0.999, 1 - 10 / settings.steps) if settings.steps > 10 else 0.0
        state = TrainState(net, settings.lr, settings.steps, settings.seed, warmup, weight_decay=0.02, ema=average)
        augment, weights = augmentation(settings.augment), drawing_weights(examples, settings)

        def loss(generator: torch.Generator) -> Tensor:
            index = torch.multinomial(weights, settings.batch, replacement=True, generator=generator)
            images = examples.images[index].to(device).float() / 255
            seed = int(torch.randint(0, 2**31, (1,), generator=generator))
            logits = net(net.preprocess(augment(images, seed)))
            return _loss(logits, {a: y[index].to(device) for a, y in examples.labels.items()})

        state.run(loss, folder / training_name(examples, settings), progress, every=max(1, settings.steps // 100))
        model = state.ema.cpu().eval()
        for weight in model.parameters():
            weight.copy_(weight.half().float())
    made = accuracy(model, held_out) if held_out is not None and len(held_out) else {}
    return Trained(model, state.log, made, _info(examples, settings, held_out, state.elapsed()))


def save_trained(made: Trained, path: Path) -> None:
    """Write a classifier with what it was trained on, and how well it reads what was held out."""
    save_classifier(made.model, path, {"info": json.dumps({**made.info, "held_out_accuracy": made.held_out})})


def training_name(examples: Examples, settings: ClassifierSettings) -> str:
    """Name of a training's folder, made of all that it depends on."""
    facts = json.dumps([asdict(settings), examples.digest()], sort_keys=True)
    return f"{settings.architecture}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def new_classifier(settings: ClassifierSettings, attributes: Mapping[str, tuple[str, ...]]) -> AttributeClassifier:
    """An untrained network: a convolutional one with a stage more for every doubling of the size above 32, or a vision transformer whose
    patches make a grid of 8 x 8 (14 x 14 at 224)."""
    size = settings.image_size
    if settings.architecture == CNN:
        return ConvNet(attributes, size, WIDTHS[: 3 + max(0, (size // 32).bit_length() - 1)])
    return VisionTransformer(attributes, size, VitSizes(patch=16 if size == 224 else size // 8))


def drawing_weights(examples: Examples, settings: ClassifierSettings) -> Tensor:
    """How often every image is drawn, float64 [N], summing to 1. Raises ValueError where nothing is left to draw, or an attribute to be
    balanced is unknown or has unlabelled images."""
    weights = torch.where(examples.generated, settings.generated_weight, 1.0).double()
    if weights.sum() <= 0:
        raise ValueError("all images are generated and generated_weight is 0, so that nothing is left to train on: raise it.")
    cell = torch.zeros(len(examples), dtype=torch.long)
    for attribute in settings.balance:
        if attribute not in examples.labels:
            raise ValueError(f"'{attribute}' cannot be balanced, as the images have no such labels, only {', '.join(examples.labels)}.")
        missing = int((examples.labels[attribute] == UNKNOWN).sum())
        if missing:
            raise ValueError(f"'{attribute}' cannot be balanced, as {missing} images have no label of it: leave it out, or label them.")
        cell = cell * len(examples.attributes[attribute]) + examples.labels[attribute]
    if settings.balance:
        total = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).index_add_(0, cell, weights)
        weights = torch.where(total[cell] > 0, weights / total[cell].clamp(min=1e-300), 0.0)
    return weights / weights.sum()


def accuracy(model: AttributeClassifier, examples: Examples) -> dict[str, dict[str, Any]]:
    """Attribute -> ``accuracy`` and ``n``, and ``by_class``: class -> share of its images that are read as it (None without any)."""
    made: dict[str, dict[str, Any]] = {}
    for attribute, read in decisions(model, examples.images).items():
        classes, truth = model.attributes[attribute], examples.labels.get(attribute)
        known = torch.zeros(0, dtype=torch.bool) if truth is None else truth != UNKNOWN
        if not known.any():
            continue
        right = read[known] == truth[known]
        of = [right[truth[known] == c] for c in range(len(classes))]
        by_class = {c: float(r.float().mean()) if len(r) else None for c, r in zip(classes, of, strict=True)}
        made[attribute] = {"accuracy": float(right.float().mean()), "n": len(right), "by_class": by_class}
    return made


@torch.no_grad()
def decisions(model: AttributeClassifier, images: Tensor, batch: int = 256) -> dict[str, Tensor]:
    """The most probable class of images uint8 [N, 3, H, W]: attribute -> int64 [N]."""
    parts = [model.probabilities(chunk.float() / 255) for chunk in images.split(batch)]
    return {a: torch.cat([p[a] for p in parts]).argmax(-1) for a in model.attributes}


def check(examples: Examples, settings: ClassifierSettings) -> None:
    """Raise ValueError, in a sentence, where a training makes no sense."""
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
        there = set(examples.labels[attribute][drawn].tolist()) - {UNKNOWN}
        missing = [c for i, c in enumerate(classes) if i not in there]
        if missing:
            raise ValueError(
                f"no image shows '{missing[0]}' of '{attribute}', which a classifier cannot learn then: add images of it, or leave the "
                "attribute out."
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
    """Class -> images of it."""
    return dict(zip(classes, torch.bincount(labels[labels != UNKNOWN], minlength=len(classes)).tolist(), strict=True))
