"""Whether a classifier reads one attribute off another: is the eyeglasses reading made of the hair neurons?

Two answers for every pair of attributes A and B of one network. Overlap: how far images' neuron paths for A and for B run through the same
neurons. Causal leakage: each image's path for A is removed, and what B's labels do is compared with the removal of random paths of the
same size in the same layers, on the same images. Overlap alone proves nothing, since neurons can serve two attributes side by side.

Where B leans on A, :func:`leak_carriers` finds the neurons that carry it: those whose activation differs between A's classes and moves B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.neuron_path import NeuronPathFile
from ...models.neuron_vit import NeuronVit
from ..core.trainer import Progress
from .class_path import frequency
from .image_estimates import LEVEL, Estimate, estimate, estimate_of, images_at_once, random_like, readings
from .neuron_baselines import total_gradients
from .neuron_edits import NeuronEdit
from .path_settings import MARGIN, PathSettings
from .search import find_paths

FEWEST = 4
"""A class of A that is read in fewer images says nothing of its mean reading of B."""
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Neurons of each layer that are tried as carriers, up to a quarter of the layer."""


@dataclass(frozen=True)
class AuditSettings:
    """Settings of a leakage audit."""

    path: PathSettings = field(default_factory=lambda: PathSettings(objective=MARGIN, top_k=8))
    """How paths are found. With margin, scores do not vanish for images that the model is sure of."""
    control_draws: int = 5
    """Random paths for each image."""
    smallest_leak: float = 0.02
    """Smallest share of labels, beyond what random paths change, that gives a warning."""
    seed: int = 0
    """Seed of the random paths and of the intervals."""


@dataclass(frozen=True)
class Leak:
    """The effect of removing images' paths for ``source`` on the labels of ``target``."""

    source: str
    """Attribute whose paths are removed."""
    target: str
    """Attribute whose labels are read."""
    cosine: float
    """Overlap of the paths of both, as a cosine."""
    jaccard: float
    """Overlap of the paths of both, as a Jaccard index."""
    flips: Estimate
    """Share of labels that change."""
    moved: Estimate
    """Mean distance (total variation) between the readings before and after."""
    control_flips: float
    """Mean share of labels that change when random paths are removed."""
    control_moved: float
    """Mean distance when random paths are removed."""
    excess_flips: Estimate
    """Difference to the random paths in labels, paired by image."""
    excess_moved: Estimate
    """Difference to the random paths in distance, paired by image."""
    gap: Estimate
    """Distance between the mean readings of ``target`` in the classes that are read of ``source``; NaN if there is only one. The gap may
    also lie in the images."""
    flagged: bool
    """Whether the labels lean on the source's path."""

    def text(self) -> str:
        """Describe the leak in a line."""
        return (
            f"{self.source} -> {self.target}: {self.flips.text('.1%')} of labels change, random paths {self.control_flips:.1%}; readings "
            f"move by {self.moved.text()}, random paths {self.control_moved:.3f}; overlap of paths {self.cosine:.2f}; gap {self.gap.text()}"
        )


@dataclass(frozen=True)
class LeakageAudit:
    """Leaks between all pairs of attributes."""

    attributes: tuple[str, ...]
    """Names of the attributes."""
    leaks: tuple[Leak, ...]
    """One for every ordered pair. The pair of an attribute with itself shows what its own path is worth."""
    paths: dict[str, Tensor]
    """Attribute -> paths int64 [B, L, K]."""
    read: dict[str, Tensor]
    """Attribute -> label of each image, int64 [B]."""
    images: int
    """Number of images."""
    level: float
    """Confidence of the intervals of the excesses."""
    settings: AuditSettings
    """Settings of the audit."""

    def leak(self, source: str, target: str) -> Leak:
        """Return the figures of one pair."""
        return next(leak for leak in self.leaks if (leak.source, leak.target) == (source, target))

    @property
    def flagged(self) -> tuple[Leak, ...]:
        """Leaks, the largest first."""
        return tuple(sorted((x for x in self.leaks if x.flagged), key=lambda x: -x.excess_flips.mean))

    def warnings(self) -> list[str]:
        """List a sentence for each leak, the largest first."""
        return [
            f"WARNING: labels of {x.target} lean on what decides {x.source}: removing each image's {x.source} path changes "
            f"{x.flips.mean:.1%} of them, random paths {x.control_flips:.1%} (difference {x.excess_flips.text('.1%')})"
            for x in self.flagged
        ]

    def table(self, what: str) -> Tensor:
        """Return one figure of all pairs: float32 [A, A].

        Rows are the source and columns the target: "cosine", "flips" or "excess".
        """
        of = {"cosine": lambda x: x.cosine, "flips": lambda x: x.flips.mean, "excess": lambda x: x.excess_flips.mean}[what]
        return torch.tensor([[of(self.leak(a, b)) for b in self.attributes] for a in self.attributes])


def audit_leakage(
    nets: Mapping[str, NeuronVit], pixels: Tensor, settings: AuditSettings | None = None, progress: Progress | None = None
) -> LeakageAudit:
    """Audit attributes of one network against each other.

    nets: attribute -> the network with that attribute's head; pixels [B, 3, H, W]: preprocessed. Intervals of the excesses hold for all
    pairs together (Bonferroni). ``progress`` may raise, which interrupts.

    Raises ValueError for fewer than two attributes, heads of different networks, and fewer than 8 images.
    """
    s = settings or AuditSettings()
    names = tuple(nets)
    if len(names) < 2:
        raise ValueError(f"leakage is measured between attributes, and there is {len(names)}: name at least two.")
    if len({net.fingerprint() for net in nets.values()}) > 1:
        raise ValueError("these attributes are read by different networks, which share no neurons: audit those of one network.")
    if len(pixels) < 8:
        raise ValueError(f"an audit counts labels over images, and {len(pixels)} tell nothing: connect at least 8, better 100.")
    total, done = len(names) * (3 + s.control_draws * len(names) + len(names)), 0

    def step(by: int = 1) -> None:
        nonlocal done
        done += by
        if progress:
            progress(done, total, {})

    clean = {name: readings(net, pixels) for name, net in nets.items()}
    paths = {}
    for name, net in nets.items():
        paths[name] = _paths(net, pixels, clean[name].argmax(1), s.path, lambda *_: step(0))
        step(3)
    directions = {name: F.normalize(frequency(path, nets[name].neurons).flatten(), dim=0) for name, path in paths.items()}
    pairs = len(names) * (len(names) - 1)
    level = 1 - (1 - LEVEL) / pairs
    leaks = []
    for a in names:
        control = [random_like(paths[a], nets[a].neurons, s.seed + 101 * i) for i in range(s.control_draws)]
        for b in names:
            flips, moved = _effect(nets[b], pixels, clean[b], paths[a])
            step()
            by_chance = []
            for path in control:
                by_chance.append(_effect(nets[b], pixels, clean[b], path))
                step()
            chance_flips, chance_moved = (torch.stack(parts).mean(0) for parts in zip(*by_chance, strict=True))
            excess = [estimate(own - chance, level, seed=s.seed) for own, chance in ((flips, chance_flips), (moved, chance_moved))]
            leaks.append(
                Leak(
                    a,
                    b,
                    float(directions[a] @ directions[b]),
                    _jaccard(paths[a], paths[b]),
                    estimate(flips, seed=s.seed),
                    estimate(moved, seed=s.seed),
                    float(chance_flips.mean()),
                    float(chance_moved.mean()),
                    *excess,
                    gap_estimate(clean[b], clean[a].argmax(1), s.seed),
                    a != b and excess[0].low > 0 and excess[0].mean >= s.smallest_leak,
                )
            )
    read = {name: p.argmax(1) for name, p in clean.items()}
    return LeakageAudit(names, tuple(leaks), paths, read, len(pixels), level, s)


def gap(readings_of: Tensor, groups: Tensor) -> float:
    """Return the largest distance between the mean readings of two groups.

    Total variation; readings [B, C]; groups int64 [B]. Groups with fewer than 4 images do not count. NaN if there are not two groups.
    """
    p, g = np.asarray(readings_of, dtype=np.float64), np.asarray(groups)
    means = [p[g == k].mean(0) for k in np.unique(g) if (g == k).sum() >= FEWEST]
    return max((float(np.abs(x - y).sum() / 2) for i, x in enumerate(means) for y in means[:i]), default=float("nan"))


def gap_estimate(readings_of: Tensor, groups: Tensor, seed: int = 0) -> Estimate:
    """Estimate :func:`gap` with its interval over resampled images.

    It cannot be negative, so chance alone makes it larger than 0.
    """
    p, g = np.asarray(readings_of, dtype=np.float64), np.asarray(groups)
    return estimate_of(lambda index: gap(p[index], g[index]), len(p), draws=500, seed=seed)


@dataclass(frozen=True)
class Carriers:
    """Neurons that carry the classes of ``source`` into the reading of ``target``."""

    source: str
    """Attribute whose classes are carried."""
    target: str
    """Attribute that is read."""
    neurons: Tensor
    """int64 [L, K], those that carry most first in each layer."""
    scores: Tensor
    """[L, K]: how far each neuron opens the gap, to first order and in logits."""
    classes: tuple[int, int]
    """The two classes of the source that are furthest apart."""
    label: int
    """The class of the target that the neurons move."""
    before: Estimate
    """Gap in images that took no part in the choice, in the model as it is."""
    after: Estimate
    """Gap in the same images with the neurons removed."""
    flips: Estimate
    """Share of their labels that the removal changes."""
    tried: dict[int, float]
    """Neurons of each layer -> gap that they left in the images of the choice."""

    def file(self, net: NeuronVit, model: str) -> NeuronPathFile:
        """Return the carriers as a path, for Edit Vision Neurons."""
        nothing = torch.full((1,), torch.nan)
        scores = self.scores[None].float()
        return NeuronPathFile(
            f"carriers of {self.source}",
            self.target,
            net.labels,
            (net.labels[self.label],),
            self.neurons[None],
            torch.zeros_like(scores),
            scores,
            nothing,
            nothing,
            nothing,
            net.neurons,
            net.fingerprint(),
            True,
            {"model": model, "source": self.source, "objective": MARGIN, "rows": net.rows},
        )


def leak_carriers(
    net: NeuronVit,
    pixels: Tensor,
    groups: Tensor,
    source: str,
    target: str,
    left: float = 0.4,
    seed: int = 0,
    progress: Progress | None = None,
) -> Carriers:
    """Find the fewest neurons that carry a gap between groups.

    As many in each layer. Without them, the gap is at most ``left`` of what it was. If no number of neurons reaches that, those that leave
    least are returned.

    net: with B's head; groups int64 [B]: A's class of each image, as it is read or known. The gap has to come from the model: images in
    which A and B do go together would have it rightly, so give such in which they do not (a joint target makes them). The choice is made on
    one half of the images, and the figures are of the other.

    Raises ValueError where fewer than two groups have 8 images.
    """
    groups = groups.cpu()
    if sum(int((groups == k).sum()) >= 2 * FEWEST for k in groups.unique()) < 2:
        raise ValueError(
            f"what carries {source} into {target} shows between images of two classes, and 8 of each are needed: connect more images."
        )
    # Every other image of each class, in an order drawn from the seed.
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    order = order[groups[order].argsort(stable=True)]
    chosen, tested = order[0::2], order[1::2]
    p = readings(net, pixels[chosen])
    classes, label = _furthest(p, groups[chosen])
    scores = _carry(net, pixels[chosen], groups[chosen], classes, label)
    full_gap, tried, best = gap(p, groups[chosen]), {}, 1
    counts = [k for k in COUNTS if k <= max(1, net.neurons // 4)]
    for number, count in enumerate(counts):
        tried[count] = gap(readings(net, pixels[chosen], NeuronEdit(scores.topk(count, dim=1).indices)), groups[chosen])
        best = min(tried, key=tried.__getitem__)
        if progress:
            progress(number + 1, len(counts) + 1, {})
        if tried[count] <= left * full_gap:
            best = count
            break
    top = scores.topk(best, dim=1)
    clean, edited = readings(net, pixels[tested]), readings(net, pixels[tested], NeuronEdit(top.indices))
    if progress:
        progress(len(counts) + 1, len(counts) + 1, {})
    return Carriers(
        source,
        target,
        top.indices,
        top.values,
        classes,
        label,
        gap_estimate(clean, groups[tested], seed),
        gap_estimate(edited, groups[tested], seed),
        estimate((clean.argmax(1) != edited.argmax(1)).float(), seed=seed),
        tried,
    )


def _paths(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, progress: Progress) -> Tensor:
    s, size = replace(s, shared=False), images_at_once(net, s.memory_mb)
    parts = zip(pixels.split(size), targets.split(size), strict=True)
    return torch.cat([find_paths(net, x, t, s, progress).path.cpu() for x, t in parts])


def _effect(net: NeuronVit, pixels: Tensor, clean: Tensor, path: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how removing a path changes every image's label and reading."""
    edited = readings(net, pixels, NeuronEdit(path))
    return (edited.argmax(1) != clean.argmax(1)).float(), (edited - clean).abs().sum(1) / 2


def _jaccard(a: Tensor, b: Tensor) -> float:
    """Average the Jaccard index of two paths [B, L, K] over images."""
    both = (a[..., :, None] == b[..., None, :]).any(-1).sum((1, 2)).float()
    return float((both / (a[0].numel() + b[0].numel() - both)).mean())


def _furthest(p: Tensor, groups: Tensor) -> tuple[tuple[int, int], int]:
    """Find the two groups, and the class, whose mean readings differ most.

    The mean probability is larger in the first group.
    """
    large = [int(k) for k in groups.unique() if (groups == k).sum() >= FEWEST]
    means = {k: p[groups == k].mean(0) for k in large}
    _, first, second = max(((float((means[i] - means[j]).max()), i, j) for i in large for j in large if i != j), key=lambda f: f[0])
    return (first, second), int((means[first] - means[second]).argmax())


def _carry(net: NeuronVit, pixels: Tensor, groups: Tensor, classes: tuple[int, int], label: int) -> Tensor:
    """Return how much each neuron carries the difference of two classes: float32 [L, D].

    (mean activation in the first class - in the second) times the mean slope of the label's margin.
    """
    targets = torch.full((len(pixels),), label, device=net.device)
    with torch.inference_mode(False), torch.no_grad():
        # Copies: the host makes images in inference mode, and no gradient can be taken through such.
        inputs = pixels.to(net.device, net.dtype).clone()
        gradients, values = total_gradients(net, inputs, targets, PathSettings(objective=MARGIN))
        first, second = ((groups == k).to(net.device) for k in classes)
        layers = [((v[first].mean(0) - v[second].mean(0)) * g.mean(0)).sum(0) for g, v in zip(gradients, values, strict=True)]
    return torch.stack(layers).float().cpu()
