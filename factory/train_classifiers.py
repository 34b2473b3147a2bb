"""Train the shipped labeller (vision transformer) and judge (convolutional network) on drawn portraits of their own.

Drawn with every attribute uniform and independent, so that no class is rare and no attribute stands in for another. Blur, grain and
noise stand for what a diffusion model does to an image. A fifth of the drawings lie between classes (half a frame, a skin tone on the way
to the next) and count as the nearer one: a diffusion model makes some of these, and without having seen any, two classifiers of the same
drawings disagree on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..methods.core.trainer import AveragedSettings, AveragedTraining, Progress
from ..methods.datasets.augment import degrade
from ..models.attribute_classifier import AttributeClassifier, ConvNet, VisionTransformer
from .portraits import ATTRIBUTES, Between, draw_portraits, portraits

POOL, BETWEEN_POOL = 60_000, 15_000
SEEDS = {"labeller": 2_000_000, "judge": 3_000_000}
HELD_OUT_SEED = 9_000_000


def uniform_labels(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw every attribute uniformly and independently, int64 [n] each."""
    return {name: torch.randint(0, len(classes), (n,), generator=generator) for name, classes in ATTRIBUTES.items()}


def draw_uniform(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw images uint8 [n, 3, 32, 32] and their labels, as :func:`uniform_labels`."""
    images, labels = [], []
    for start in range(0, n, 2000):
        generator = torch.Generator().manual_seed(seed + start)
        chosen = uniform_labels(min(2000, n - start), generator)
        images.append((draw_portraits(chosen, generator) * 255).round().byte())
        labels.append(chosen)
    return torch.cat(images), {k: torch.cat([c[k] for c in labels]) for k in ATTRIBUTES}


def draw_between(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw images between classes, and the classes they are nearer to.

    uint8 [n, 3, 32, 32].
    """
    images, labels = [], []
    for start in range(0, n, 2000):
        generator = torch.Generator().manual_seed(seed + start)
        m = min(2000, n - start)
        chosen = uniform_labels(m, generator)
        step = torch.where(torch.rand(m, generator=generator) < 0.5, 1, -1)
        to = (chosen["skin_tone"] + step).clamp(0, len(ATTRIBUTES["skin_tone"]) - 1)
        share = torch.rand(m, generator=generator)
        # Both frames alike, or each at an opacity of its own.
        frames = torch.rand(2, m, generator=generator)
        frames = torch.where(torch.rand(m, generator=generator) < 0.5, frames, frames[:1].expand(2, m))
        images.append((draw_portraits(chosen, generator, Between(to, share, frames)) * 255).round().byte())
        chosen["skin_tone"] = torch.where(share > 0.5, to, chosen["skin_tone"])
        chosen["eyeglasses"] = (frames.mean(0) <= 0.5).long()
        labels.append(chosen)
    return torch.cat(images), {k: torch.cat([c[k] for c in labels]) for k in ATTRIBUTES}


def train_portrait_classifier(
    kind: str, folder: Path, steps: int, batch: int = 64, lr: float = 1e-3, progress: Progress | None = None
) -> AttributeClassifier:
    """Train the "labeller" or the "judge" in a folder.

    From its checkpoint if there is one; returns the averaged network.
    """
    torch.manual_seed(SEEDS[kind])
    net = VisionTransformer(ATTRIBUTES) if kind == "labeller" else ConvNet(ATTRIBUTES)
    settings = AveragedSettings(lr, steps, SEEDS[kind], warmup=300, weight_decay=0.02, average=0.999)
    training = AveragedTraining(net, settings, folder)
    images, labels = draw_uniform(POOL, SEEDS[kind])
    between, nearer = draw_between(BETWEEN_POOL, SEEDS[kind] + POOL)
    images, labels = torch.cat([images, between]), {a: torch.cat([labels[a], nearer[a]]) for a in ATTRIBUTES}

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.randint(0, len(images), (batch,), generator=generator)
        logits = net(net.preprocess(degrade(images[index].float() / 255, generator)))
        return sum(F.cross_entropy(logits[a], labels[a][index], label_smoothing=0.01) for a in ATTRIBUTES)

    training.train(loss, progress)
    return training.ema.eval()


def drawn_accuracy(model: AttributeClassifier, images: Tensor, labels: Mapping[str, Tensor]) -> dict[str, float]:
    """Measure the share of images whose most probable class is the drawn one, per attribute."""
    read = model.probabilities(images)
    return {a: (read[a].argmax(-1) == labels[a]).float().mean().item() for a in ATTRIBUTES}


def draw_unseen(n: int = 4096) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw portraits that no training saw, with labels.

    images float32 [n, 3, 32, 32] in 0..1, from the natural joint distribution.
    """
    drawn = portraits(n, HELD_OUT_SEED)
    return drawn.images, drawn.labels
