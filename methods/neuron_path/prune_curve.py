"""How few neurons a classifier needs: all but those of its classes' paths are pruned, and images that took no part in the choice are read.

Wang et al., "Discovering Influential Neuron Path in Vision Transformers", ICLR 2025, section 4.4, with three differences. Accuracy and the
target's probability are both given (the published code calls the latter accuracy). The neurons kept are those of all classes' paths, so
that nothing has to know an image's class beforehand. And as many random neurons in the same layers are kept beside them, since a model that
bears any pruning says nothing of paths.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...models.neuron_vit import CLS, NeuronVit
from ..core.trainer import Progress
from .image_estimates import Estimate, estimate, random_like, readings
from .neuron_edits import KEEP, NeuronEdit, union
from .path_settings import MARGIN, PathSettings
from .search import find_paths

WITHIN = 0.01
"""Accuracy that may be lost at the recommended number."""


@dataclass(frozen=True)
class PruneSettings:
    """Settings of a pruning curve."""

    kept: tuple[int, ...] = (1, 5, 10, 20, 50)
    """Neurons of each layer and class that stay."""
    shares: tuple[float, ...] = (0.1, 0.3, 0.5, 1.0)
    """Probabilities with which each other neuron is zeroed, drawn anew for every image."""
    path: PathSettings = field(default_factory=lambda: PathSettings(objective=MARGIN))
    """How paths are found."""
    layers: tuple[int, int] | None = None
    """First and last layer that are pruned; None for all."""
    control_draws: int = 3
    """Random choices of as many neurons."""
    seed: int = 0
    """Seed of the choices and draws."""


@dataclass(frozen=True)
class PrunePoint:
    """One point of a pruning curve."""

    kept: int
    """Neurons of each layer and class that stay."""
    share: float
    """Probability with which each other neuron is zeroed."""
    neurons: float
    """Neurons that stay in a layer, on average over layers."""
    accuracy: Estimate
    """Accuracy with the neurons of the paths."""
    probability: Estimate
    """Probability of the true class with the neurons of the paths."""
    control_accuracy: Estimate
    """Accuracy with as many random neurons."""
    control_probability: Estimate
    """Probability of the true class with as many random neurons."""


@dataclass(frozen=True)
class PruneCurve:
    """A pruning curve."""

    accuracy: Estimate
    """Accuracy of the full model on the held-out images."""
    probability: Estimate
    """Probability of the true class in the full model."""
    points: tuple[PrunePoint, ...]
    """Points of the curve."""
    paths: Tensor
    """int64 [C, L, K] of the classes, best first."""
    classes: tuple[int, ...]
    """Positions of the classes in the head."""
    recommended: int | None
    """Smallest number of neurons with which at most a percentage point of accuracy is lost while all others are pruned; None if there is
    none."""
    images: int
    """Number of held-out images."""
    fitted: int
    """Number of images from which the paths are."""
    known: bool
    """Whether true classes were given. If not, what the full model reads stands for them."""

    def lines(self, net: NeuronVit) -> list[str]:
        """Write the table, the recommendation, and what pruning saves."""
        what = "accuracy" if self.known else "agreement with the whole model"
        lines = [
            f"paths of {len(self.classes)} class(es) of {self.fitted} images; {what} and the class's probability on {self.images} others; "
            f"whole model {self.accuracy.text('.1%')}, {self.probability.text()}"
        ]
        lines += [
            f"keep {p.kept} per layer and class ({p.neurons:.0f} of {net.neurons}), prune others with {p.share:.0%}: "
            f"{p.accuracy.text('.1%')}, {p.probability.text()}; as many random ones: {p.control_accuracy.text('.1%')}, "
            f"{p.control_probability.text()}"
            for p in self.points
        ]
        if self.recommended is None:
            lines.append(f"none of these numbers loses less than {WITHIN:.0%} with all others pruned")
        else:
            lines.append(f"recommended: keep {self.recommended}, the fewest that lose at most {WITHIN:.0%} with all others pruned")
        return [*lines, saved(net)]


def saved(net: NeuronVit) -> str:
    """Describe what pruning saves."""
    if net.rows == CLS:
        where = f"at the CLS token alone, one of {net.tokens}: the layers compute all their neurons for every other token"
    else:
        where = "by setting it to zero after it was computed"
    return (
        f"nothing is saved: a neuron is pruned here {where}. Time and memory would be saved only if neurons were pruned at all tokens and "
        "taken out of both linear maps."
    )


def prune_curve(
    net: NeuronVit, pixels: Tensor, truth: Tensor | None = None, settings: PruneSettings | None = None, progress: Progress | None = None
) -> PruneCurve:
    """Measure accuracy as neurons off the paths are pruned.

    Paths are from every other image, the curve from the rest.

    pixels [B, 3, H, W]: preprocessed; truth int64 [B]: true classes (None: what the model reads). ``progress`` may raise, which interrupts.
    Raises ValueError for fewer than 8 images, numbers that a layer has not, and another number of true classes.
    """
    s = settings or PruneSettings()
    kept = sorted(set(s.kept))
    if len(pixels) < 8:
        raise ValueError(f"half of the images choose neurons, the other half tests them, and {len(pixels)} are too few: connect 8 or more.")
    if not kept or kept[0] < 1 or kept[-1] > net.neurons:
        raise ValueError(f"a layer has {net.neurons} neurons and {kept} were to be kept: choose 1 to {net.neurons}.")
    if not s.shares or not all(0 <= p <= 1 for p in s.shares):
        raise ValueError(f"neurons are pruned with probabilities of 0 to 1, not {list(s.shares)}.")
    if truth is not None and len(truth) != len(pixels):
        raise ValueError(f"{len(pixels)} image(s) need as many true classes and met {len(truth)}: give one for each.")
    clean = readings(net, pixels)
    targets = clean.argmax(1) if truth is None else truth.cpu()
    fit, test = slice(0, None, 2), slice(1, None, 2)
    classes = targets[fit].unique().tolist()
    search = replace(s.path, top_k=kept[-1], shared=True)
    total, done = len(classes) + len(kept) * len(s.shares) * (1 + s.control_draws), 0

    def step(by: int = 1) -> None:
        nonlocal done
        done += by
        if progress:
            progress(done, total, {})

    paths = []
    for c in classes:
        own = pixels[fit][targets[fit] == c]
        paths.append(find_paths(net, own, torch.full((len(own),), c), search, lambda *_: step(0)).path[0].cpu())
        step()
    every, wanted = torch.stack(paths), targets[test]

    def measured(neurons: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
        p = readings(net, pixels[test], NeuronEdit(neurons, KEEP, share=share, seed=seed, layers=s.layers))
        step()
        return (p.argmax(1) == wanted).float(), p.gather(1, wanted[:, None])[:, 0]

    points = []
    for k in kept:
        stay = union(every[:, :, :k])
        for share in s.shares:
            own = measured(stay, share, s.seed)
            drawn = [measured(random_like(stay, net.neurons, s.seed + 101 * i), share, s.seed + i) for i in range(s.control_draws)]
            control = [torch.stack(parts).mean(0) for parts in zip(*drawn, strict=True)] if drawn else own
            points.append(PrunePoint(k, share, float((stay >= 0).sum()) / net.depth, *(estimate(x, seed=s.seed) for x in (*own, *control))))
    base = (clean[test].argmax(1) == wanted).float()
    widest = [p for p in points if p.share == max(s.shares)]
    good = [p.kept for p in widest if p.accuracy.mean >= float(base.mean()) - WITHIN and p.share == 1]
    return PruneCurve(
        estimate(base, seed=s.seed),
        estimate(clean[test].gather(1, wanted[:, None])[:, 0], seed=s.seed),
        tuple(points),
        every,
        tuple(classes),
        min(good, default=None),
        len(wanted),
        len(pixels[fit]),
        truth is not None,
    )
