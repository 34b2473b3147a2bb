"""Means over images with intervals by bootstrap, and a classifier's readings with some of its neurons edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...models.neuron_vit import NeuronVit
from ..core.trainer import Progress
from .neuron_edits import KEEP, NeuronEdit, edited_logits

DRAWS, LEVEL = 2000, 0.95
ROWS = 64
"""Images of a pass, at most."""


@dataclass(frozen=True)
class Estimate:
    """A mean over images, with its interval."""

    mean: float
    """The mean."""
    low: float
    """Lower bound; NaN if there is only one image."""
    high: float
    """Upper bound; NaN if there is only one image."""

    def text(self, style: str = ".3f") -> str:
        """Write the estimate and its interval in words."""
        return f"{self.mean:{style}} ({self.low:{style}} to {self.high:{style}})"


def estimate(values: Tensor, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Average values [B] over images, with an interval.

    The interval is by percentiles over resampled images.
    """
    v = values.detach().double().cpu().numpy()
    if len(v) < 2:
        return Estimate(float(v.mean()), float("nan"), float("nan"))
    return estimate_of(lambda index: v[index].mean(), len(v), level, draws, seed)


def estimate_of(figure: Callable[[np.ndarray], float], n: int, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Compute a figure of all images, with an interval.

    ``figure`` takes an index int [n] of images. The interval is over resampled images; resamples in which the figure is NaN are left out.
    """
    generator = np.random.default_rng(seed)
    drawn = np.array([figure(generator.integers(0, n, n)) for _ in range(draws)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(figure(np.arange(n))), float(low), float(high))


def readings(net: NeuronVit, pixels: Tensor, edit: NeuronEdit | None = None, progress: Progress | None = None) -> Tensor:
    """Read class probabilities of images, with neurons edited: float32 [B, K].

    On the CPU, of preprocessed pixels [B, 3, H, W]. ``edit`` None: the model as it is.

    Pruning draws its neurons anew for every image, also where images are read in several passes. ``progress`` may raise, which interrupts.
    """
    parts = []
    for start in range(0, len(pixels), ROWS):
        part = pixels[start : start + ROWS]
        edits = [] if edit is None else [_of_rows(edit, start, len(part))]
        parts.append(edited_logits(net, part, edits).float().softmax(-1).cpu())
        if progress:
            progress(start + len(part), len(pixels), {})
    return torch.cat(parts)


def images_at_once(net: NeuronVit, memory_mb: int) -> int:
    """Return how many images can be searched together.

    States, tangents and attention at five points of the integral must fit into the memory.
    """
    per_image = 5 * (3 * net.heads * net.tokens**2 + net.tokens * (9 * net.width + 3 * net.neurons)) * net.weights["cls"].element_size()
    return max(1, min(ROWS, memory_mb * 2**20 // per_image))


def random_like(neurons: Tensor, width: int, seed: int) -> Tensor:
    """Draw as many random neurons in each layer as ``neurons`` names.

    ``neurons`` [..., L, K]; -1: none.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(*neurons.shape[:-1], width, generator=generator).topk(min(neurons.shape[-1], width), dim=-1).indices
    return torch.where(neurons[..., : drawn.shape[-1]].cpu() < 0, -1, drawn)


def _of_rows(edit: NeuronEdit, start: int, count: int) -> NeuronEdit:
    own = edit.neurons[start : start + count] if edit.neurons.ndim == 3 and len(edit.neurons) > 1 else edit.neurons
    return replace(edit, neurons=own, seed=edit.seed + 7919 * (start // ROWS) if edit.operation == KEEP else edit.seed)
