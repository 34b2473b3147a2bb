"""What is neuron 3:17? The images that excite it most and least at the CLS token, and where in them the same unit is active."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.neuron_vit import CLS, NeuronVit
from ..core.trainer import Progress

BATCH = 32


@dataclass(frozen=True)
class GalleryRow:
    """One neuron, with the images that excite it most and least."""

    layer: int
    """Layer of the neuron."""
    neuron: int
    """Number of the neuron in its layer."""
    activation: Tensor
    """[B]: activation of each image (of the CLS token; of a channel, the mean over patches)."""
    top: tuple[int, ...]
    """Images that excite it most, in order."""
    bottom: tuple[int, ...]
    """Images that excite it least, in order."""
    heat_top: Tensor
    """[n, h, w]: the unit at the patch tokens of ``top``, not below 0."""
    heat_bottom: Tensor
    """[n, h, w]: the unit at the patch tokens of ``bottom``, not below 0."""
    by_class: dict[str, float]
    """Label that is read -> mean activation."""

    def text(self) -> str:
        """Describe the row in a line."""
        by_class = ", ".join(f"{c} {v:+.3f}" for c, v in self.by_class.items())
        top = ", ".join(f"{i} ({float(self.activation[i]):+.2f})" for i in self.top)
        bottom = ", ".join(f"{i} ({float(self.activation[i]):+.2f})" for i in self.bottom)
        return f"{self.layer}:{self.neuron} mean by label {by_class}; most active images {top}; least {bottom}"


def neuron_gallery(
    net: NeuronVit, pixels: Tensor, neurons: Sequence[tuple[int, int]], shown: int = 5, progress: Progress | None = None
) -> list[GalleryRow]:
    """Make a row of images for each (layer, neuron), in order.

    pixels [B, 3, H, W]: preprocessed.

    ``progress`` may raise, which interrupts.

    Raises ValueError without images or neurons, and for a neuron that there is not.
    """
    if not len(pixels) or not neurons:
        raise ValueError("a gallery shows neurons by images: connect at least one image, and name at least one neuron.")
    for layer, j in neurons:
        if not (0 <= layer < net.depth and 0 <= j < net.neurons):
            raise ValueError(
                f"this model has the layers 0 to {net.depth - 1} of neurons 0 to {net.neurons - 1}, and {layer}:{j} is none of them."
            )
    values, maps, labels = [], [], []
    for start in range(0, len(pixels), BATCH):
        at, logits = _units(net, pixels[start : start + BATCH], neurons)
        own = at[:, 0] if net.rows == CLS else at[:, 1:].mean(1)
        values.append(own)
        maps.append(at[:, 1:])
        labels.append(logits.argmax(1))
        if progress:
            progress(min(start + BATCH, len(pixels)), len(pixels), {})
    activation, heat, label = torch.cat(values), torch.cat(maps).clamp(min=0), torch.cat(labels)
    side = math.isqrt(heat.shape[1])
    heat = heat.transpose(1, 2).unflatten(2, (side, side))
    rows = []
    for n, (layer, j) in enumerate(neurons):
        order = activation[:, n].argsort(descending=True, stable=True)
        count = min(shown, len(order))
        top, bottom = order[:count], order.flip(0)[:count]
        by_class = {name: float(activation[label == c, n].mean()) for c, name in enumerate(net.labels) if bool((label == c).any())}
        parts = tuple(top.tolist()), tuple(bottom.tolist()), heat[top, n], heat[bottom, n]
        rows.append(GalleryRow(layer, j, activation[:, n], *parts, by_class))
    return rows


@torch.no_grad()
def _units(net: NeuronVit, pixels: Tensor, neurons: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Return the units at all tokens, float32 [B, N, n], and the logits.

    On the CPU.
    """
    x = net.embed(pixels.to(net.device))
    maps = torch.zeros(len(pixels), net.tokens, len(neurons))
    for layer in range(net.depth):
        a = net.attend(layer, x)
        u = net.hidden(layer, a)
        for n, (of, j) in enumerate(neurons):
            if of == layer:
                maps[:, :, n] = u[:, :, j].float().cpu()
        x = a + net.linear(f"layers.{layer}.fc2", u)
    return maps, net.logits(x).float().cpu()
