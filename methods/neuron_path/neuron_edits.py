"""Interventions on neurons: what a vision transformer answers when some of them are silenced, scaled, or kept alone.

Nothing is held here: layers that follow answer to the change, as in a model that is used with the edit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.neuron_vit import Edit, NeuronVit, clean_pass

ZERO, SCALE, MEAN, KEEP = "zero", "scale", "mean", "keep-only"
OPERATIONS = (ZERO, SCALE, MEAN, KEEP)
ONE_ROW, ALL_ROWS = "neurons", "all tokens"


@dataclass(frozen=True)
class NeuronEdit:
    """An edit of neurons."""

    neurons: Tensor
    """int64 [L, K] for all images, or [B, L, K] for each image its own; -1 stands for none."""
    operation: str = ZERO
    """"zero"; "scale" by ``factor``; "mean": to the ``means``; "keep-only": every other neuron of the layers is zeroed with the
    probability ``share``, anew for every image."""
    factor: float = 2.0
    """Factor of "scale"."""
    means: Tensor | None = None
    """Mean clean values [L, D], for "mean"."""
    share: float = 1.0
    """Probability of "keep-only"."""
    seed: int = 0
    """Seed of "keep-only"."""
    layers: tuple[int, int] | None = None
    """First and last layer that are edited; None for all."""

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise ValueError(f"neurons are edited by {', '.join(OPERATIONS)}, not '{self.operation}': choose one of them.")
        if self.operation == MEAN and self.means is None:
            raise ValueError("setting neurons to their mean needs images to take it over: connect some, or choose zero.")
        if not 0 <= self.share <= 1:
            raise ValueError(f"neurons are pruned with a probability of 0 to 1, not {self.share:g}.")

    def mask(self, layer: int, width: int) -> Tensor:
        """Mark the neurons of a layer that are named: bool [1 or B, D]."""
        chosen = self.neurons if self.neurons.ndim == 3 else self.neurons[None]
        chosen = chosen[:, layer]
        marked = torch.zeros(len(chosen), width + 1, dtype=torch.bool, device=chosen.device)
        marked.scatter_(1, torch.where(chosen < 0, width, chosen), True)
        return marked[:, :width]

    def applied(self, layer: int, hidden: Tensor) -> Tensor:
        """Return hidden [B, R, D] of a layer after the edit."""
        if self.layers and not self.layers[0] <= layer <= self.layers[1]:
            return hidden
        named = self.mask(layer, hidden.shape[-1]).to(hidden.device)[:, None]
        if self.operation == SCALE:
            return torch.where(named, hidden * self.factor, hidden)
        if self.operation == MEAN:
            return torch.where(named, self.means[layer].to(hidden), hidden)
        if self.operation == ZERO:
            return hidden.masked_fill(named, 0)
        generator = torch.Generator().manual_seed(self.seed * 1009 + layer)
        drawn = torch.rand(len(hidden), hidden.shape[-1], generator=generator).to(hidden.device) < self.share
        return hidden.masked_fill(drawn[:, None] & ~named, 0)


def combined(edits: list[NeuronEdit]) -> Edit:
    """Apply edits one after the other.

    Edits one after the other, as :meth:`..models.neuron_vit.NeuronVit.run` takes them.
    """

    def edit(layer: int, hidden: Tensor) -> Tensor:
        for e in edits:
            hidden = e.applied(layer, hidden)
        return hidden

    return edit


@torch.no_grad()
def edited_logits(net: NeuronVit, pixels: Tensor, edits: list[NeuronEdit]) -> Tensor:
    """Compute the logits [B, K] of images with these edits.

    pixels [B, 3, H, W], preprocessed. Without edits, those of the model.
    """
    return net.run(0, net.embed(pixels.to(net.device)), combined(edits) if edits else None)


@torch.no_grad()
def mean_values(net: NeuronVit, pixels: Tensor, batch: int = 64) -> Tensor:
    """Average every neuron's clean value over images: [L, D].

    And over patches, for channels.
    """
    total = torch.zeros(net.depth, net.neurons, dtype=torch.float64)
    for part in pixels.split(batch):
        hidden, _ = clean_pass(net, net.embed(part.to(net.device)))
        total += torch.stack([h.mean(1).sum(0).double().cpu() for h in hidden])
    return (total / len(pixels)).to(net.dtype)


def union(paths: Tensor) -> Tensor:
    """Collect all neurons of paths [B, L, K] by layer: int64 [L, M].

    -1 where a layer holds fewer.
    """
    layers = [layer.unique() for layer in paths.transpose(0, 1)]
    out = paths.new_full((len(layers), max(map(len, layers))), -1)
    for i, f in enumerate(layers):
        out[i, : len(f)] = f
    return out
