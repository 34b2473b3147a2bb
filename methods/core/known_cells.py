"""The cells that images of earlier runs were assigned, so that a second pass over an image keeps its class."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 8
"""Side of the grid to which latents are pooled for comparison."""
ALIKE = 0.97
"""Least correlation of two pooled latents that count as one image. Decoding and encoding, or a change of size, leaves more."""
MOST_IMAGES = 4096
"""Number of images that are remembered."""


def picture_marks(samples: Tensor) -> Tensor:
    """Describe every latent by its coarse layout, float32 [N, D] on the CPU with mean 0 and norm 1.

    ``samples`` [N, C, H, W]; the frames of a video [N, C, T, H, W] are averaged. The mark of an empty latent is 0.
    """
    x = samples.detach().float()
    if x.ndim > 4:
        x = x.flatten(2, -3).mean(2)
    x = x[:, :, None] if x.ndim == 3 else x
    marks = F.adaptive_avg_pool2d(x, GRID).flatten(2)
    marks = (marks - marks.mean(2, keepdim=True)).flatten(1)
    return torch.nan_to_num(marks / marks.norm(dim=1, keepdim=True).clamp(min=1e-12)).cpu()


class KnownCells:
    """Remember the cells of the latest images, by their picture and by their noise."""

    def __init__(self) -> None:
        self._by_noise: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._marks: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        self._batches = 0

    def __deepcopy__(self, memo: dict[int, object]) -> KnownCells:
        # The host may copy options deeply. All copies mean one memory.
        return self

    def add(self, cells: Sequence[int], samples: Tensor, noise: tuple[int, Sequence[int]] | None) -> None:
        """Remember a batch: its cells, its finished latents [N, ...], and (seed, index of every image) of its noise."""
        self._marks[self._batches] = picture_marks(samples), torch.tensor(list(cells))
        self._batches += 1
        while sum(len(known) for _, known in self._marks.values()) > MOST_IMAGES and len(self._marks) > 1:
            self._marks.popitem(last=False)
        if noise is not None:
            self._by_noise.update({(noise[0], i): int(cell) for i, cell in zip(noise[1], cells, strict=True)})
        while len(self._by_noise) > MOST_IMAGES:
            self._by_noise.popitem(last=False)

    def of_pictures(self, samples: Tensor) -> list[int] | None:
        """Return the cells of images that begin as these latents, by the latest run that made them; None unless all are known."""
        marks = picture_marks(samples)
        same_size = [(known, of) for known, of in self._marks.values() if known.shape[1] == marks.shape[1]]
        if not same_size:
            return None
        known = torch.cat([k for k, _ in same_size])
        alike = marks @ known.T
        best = alike.max(1, keepdim=True).values
        if float(best.min()) < ALIKE:
            return None
        latest = torch.where(alike > best - 1e-4, torch.arange(len(known)), -1).argmax(1)
        return torch.cat([cells for _, cells in same_size])[latest].tolist()

    def of_noise(self, seed: int, index: Sequence[int]) -> list[int] | None:
        """Return the cells of images that were sampled from this noise before; None unless all are known."""
        cells = [self._by_noise.get((seed, i)) for i in index]
        return None if None in cells else cells
