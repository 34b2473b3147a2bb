"""What the neuron paths of many images have in common: one path for a class, how far images agree, and how alike classes are.

The frequency tensor (share of a class's images that choose a neuron of a layer) and the slot-wise mode are those of Wang et al., ICLR 2025;
the tests by permutation and bootstrap are this package's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.neuron_path import NeuronPathFile

MODE, MEAN_SCORE = "mode", "mean score"
RULES = (MODE, MEAN_SCORE)
DRAWS = 200
MOST_RANDOM = 32
"""Random paths that are compared with each other in a draw."""


@dataclass(frozen=True)
class Likeness:
    """Comparison of paths within a class with paths of other classes."""

    within: float
    """Mean Jaccard index of the paths of two images of one class."""
    control: float
    """Mean Jaccard index of two images of two classes; if there is only one class, of paths drawn at random."""
    p: float
    """Share of permutations (or random draws) that reach the difference that was measured."""
    against: str
    """What the control is, in words."""

    def text(self) -> str:
        """Describe the comparison in words."""
        return f"mean Jaccard index of two images' paths {self.within:.3f}, {self.against} {self.control:.3f} (p = {self.p:.3g})"


def frequency(path: Tensor, neurons: int) -> Tensor:
    """Return the share of paths that hold each neuron: float32 [L, D].

    paths [B, L, K].
    """
    chosen = torch.zeros(path.shape[0], path.shape[1], neurons)
    return chosen.scatter(2, path, 1.0).mean(0)


def mode_path(path: Tensor) -> Tensor:
    """Return the most frequent neuron of each slot: int64 [L, K].

    A slot is a layer and a rank; paths [B, L, K]. Of equally frequent neurons, the one with the lower number.

    One that an earlier slot of its layer has taken is passed over: in the published rule a path can hold a neuron twice.
    """
    images, depth, slots = path.shape
    width = int(path.max()) + 1
    counts = torch.zeros(depth, slots, width, dtype=torch.long)
    counts.scatter_add_(2, path.permute(1, 2, 0), torch.ones(depth, slots, images, dtype=torch.long))
    # What stands anywhere in the layer follows what stands in the slot, which may all be taken.
    ranked = torch.where(counts > 0, counts * (images * slots + 1), counts.sum(1, keepdim=True))
    out = torch.empty(depth, slots, dtype=torch.long)
    for slot in range(slots):
        out[:, slot] = ranked[:, slot].argmax(1)
        ranked.scatter_(2, out[:, slot].view(-1, 1, 1).expand(-1, slots, -1), -1)
    return out


def agreement(path: Tensor) -> Tensor:
    """Return the share of images that agree on a layer's neuron: float32 [L].

    The neuron is the layer's most frequent one; 1 if all agree.
    """
    return torch.stack([layer.unique(return_counts=True)[1].max() / len(path) for layer in path.transpose(0, 1)]).float()


def layer_entropy(path: Tensor) -> Tensor:
    """Compute the entropy of the neurons chosen in each layer: float32 [L].

    In bits; 0 if all agree (at K = 1).
    """
    bits = []
    for layer in path.transpose(0, 1):
        p = layer.unique(return_counts=True)[1] / layer.numel()
        bits.append(-(p * p.log2()).sum())
    return torch.stack(bits).float().clamp(min=0)


def jaccard(path: Tensor) -> Tensor:
    """Compute the Jaccard index of the neurons of every two paths.

    float32 [B, B] from [B, L, K].
    """
    size = path.shape[1] * path.shape[2]
    shared = torch.stack([(row[None, :, :, None] == path[:, :, None, :]).any(-1).sum((1, 2)) for row in path]).float()
    return shared / (2 * size - shared)


def likeness(path: Tensor, target: Sequence[str], neurons: int, draws: int = DRAWS, seed: int = 0) -> Likeness | None:
    """Test whether paths of one class are more alike than between classes.

    By permutation of the classes. With one class only: more alike than random paths. None if a class has fewer than two images.
    """
    groups = torch.tensor([sorted(set(target)).index(t) for t in target])
    off = ~torch.eye(len(path), dtype=torch.bool)
    if not bool(((groups[:, None] == groups[None]) & off).any()):
        return None
    generator = torch.Generator().manual_seed(seed)
    table = jaccard(path)
    if len(groups.unique()) < 2:
        within = float(table[off].mean())
        drawn = []
        count = min(len(path), MOST_RANDOM)  # fewer vary more, which errs on the careful side
        for _ in range(min(draws, 99)):
            other = torch.rand(count, path.shape[1], neurons, generator=generator).topk(path.shape[2], dim=2).indices
            drawn.append(float(jaccard(other)[off[:count, :count]].mean()))
        above = sum(d >= within for d in drawn)
        return Likeness(within, sum(drawn) / len(drawn), (1 + above) / (1 + len(drawn)), "of random paths")

    def split(g: Tensor) -> tuple[float, float]:
        same = g[:, None] == g[None]
        return float(table[same & off].mean()), float(table[~same].mean())

    within, between = split(groups)
    reached = 0
    for _ in range(draws):
        a, b = split(groups[torch.randperm(len(groups), generator=generator)])
        reached += a - b >= within - between - 1e-9
    return Likeness(within, between, (1 + reached) / (1 + draws), "of two classes")


def path_stability(path: Tensor, chosen: Tensor, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Return how often a neuron stays in a resampled class path: [L, K].

    The share of resamples of the images in which it is among the layer's K most frequent; float32.
    """
    generator = torch.Generator().manual_seed(seed)
    hits = torch.zeros(chosen.shape)
    for _ in range(draws):
        drawn = path[torch.randint(0, len(path), (len(path),), generator=generator)]
        hits += (chosen[:, :, None] == mode_path(drawn)[:, None, :]).any(-1)
    return hits / draws


def path_similarity(file: NeuronPathFile) -> Tensor:
    """Compare the paths of every two classes by cosine: float32 [C, C].

    Of the frequency tensors, in the order of ``file.classes``.
    """
    flat = torch.stack([frequency(file.of_class(c).path, file.neurons).flatten() for c in file.classes])
    flat = F.normalize(flat, dim=1)
    return flat @ flat.T


def class_paths(file: NeuronPathFile, chosen: dict[str, Tensor]) -> NeuronPathFile:
    """Make a file with one path [L, K] for each class, a row each.

    Activation and contribution are means over the images of the class whose own path holds the neuron (0 where none does); scores, which
    were not measured for these paths, are NaN.
    """
    rows, activation, contribution = [], [], []
    for label, path in chosen.items():
        own = file.of_class(label)
        hit = own.path[:, :, None, :] == path[None, :, :, None]
        count = hit.sum((0, 3)).clamp(min=1)
        rows.append(path)
        activation.append((hit * own.activation[:, :, None]).sum((0, 3)) / count)
        contribution.append((hit * own.contribution[:, :, None]).sum((0, 3)) / count)
    nothing = torch.full((len(rows),), torch.nan)
    return NeuronPathFile(
        file.method,
        file.attribute,
        file.labels,
        tuple(chosen),
        torch.stack(rows),
        torch.stack(activation),
        torch.stack(contribution),
        nothing,
        nothing,
        nothing,
        file.neurons,
        file.fingerprint,
        True,
        dict(file.info),
    )
