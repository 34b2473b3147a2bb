"""Measure directions from prompts: what another class in the prompt changes in h, on the same noised latents, at every noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...models.adp import Move
from ...models.sites import GRID
from .directions import CONTRAST

SMALLEST_CHANGE = 1e-6
"""Share of the norm of h that prompts must change at some noise level."""


class ContrastSums:
    """Sum pooled features over latents, under the prompts of all classes.

    The direction of class c at a level is the mean over latents of h_c - mean over classes of h. Its agreement is the mean cosine between
    it and the differences of single latents: 1 if the class does the same to every image, near 0 if the changes have nothing in common.
    """

    def __init__(self) -> None:
        self.latents = 0
        self.level = torch.zeros(0)
        self._difference: Tensor = torch.zeros(())
        self._units: Tensor = torch.zeros(())
        self._norm: Tensor = torch.zeros(())

    def add(self, features: Tensor, level: Tensor) -> None:
        """Add the features of N latents under the prompts of K classes.

        features [K, N, T, C, 4, 4], at log-SNR [T], ascending.

        Raises ValueError if they are not finite.
        """
        h = features.float().flatten(3)
        if not h.isfinite().all():
            raise ValueError("the model's features are not finite (NaN or infinite): load it in bf16 or fp32.")
        difference = h - h.mean(0)
        length = difference.norm(dim=-1, keepdim=True)
        if not self.latents:
            self.level, self._channels = level.clone().float(), features.shape[3]
        self._difference = self._difference + difference.sum(1)
        self._units = self._units + (difference / length.clamp(min=1e-12)).sum(1)
        self._norm = self._norm + h.norm(dim=-1).mean(0).sum(0)
        self.latents += h.shape[1]

    @property
    def directions(self) -> Tensor:
        """Return directions, float32 [T, K, C x 16], that sum to 0 over the classes."""
        return (self._difference / self.latents).transpose(0, 1)

    @property
    def longest(self) -> Tensor:
        """Return the norm of the longest step between two classes [T], as pooled."""
        return torch.stack([torch.cdist(d, d).max() for d in self.directions])

    @property
    def norm(self) -> Tensor:
        """Return the mean norm of h [T], as pooled."""
        return self._norm / self.latents

    @property
    def agreement(self) -> Tensor:
        """Return the mean cosine between single latents' differences and the direction, over all classes [T]."""
        mean = torch.nn.functional.normalize(self._difference, dim=-1)
        return (self._units / self.latents * mean).sum(-1).mean(0)

    def move(self, site: str) -> Move:
        """Make the move, relative to the class that an image is read as.

        The longest step of a level has norm 1, and all sizes are 1, in norms of h, until they are calibrated. Raises ValueError if the
        prompts change nothing.
        """
        with torch.inference_mode(False), torch.no_grad():
            longest = self.longest.clone()
            most = float((longest / self.norm.clamp(min=1e-12)).max())
            if not most > SMALLEST_CHANGE:
                raise ValueError(
                    f"the classes' prompts make no difference at '{site}' (at most {most:.1e} of the norm of h): use words that the model "
                    "knows, or another site."
                )
            directions = self.directions.clone() / longest.clamp(min=1e-12)[:, None, None]
            vectors = directions.view(*directions.shape[:2], 1, self._channels, GRID, GRID)
            return Move(site, self.level.clone(), vectors, torch.ones(directions.shape[:2]), source=CONTRAST, relative=True)

    def shares(self, detail: Tensor) -> Tensor:
        """Return how far the prompts themselves go: the longest step in norms of h [T].

        detail [T]: the norm of h as it is, over that of its pooled part brought to the same size (:func:`detail_of`).
        """
        return self.longest / (self.norm * detail).clamp(min=1e-12)


def detail_of(pooled: Tensor, maps: Tensor) -> Tensor:
    """Return how much larger h is than its pooled part [T], 1 or more.

    features [T, C, 4, 4] and full maps [T, C, H, W] of one image; the result is the ratio of their norms.
    """
    height, width = maps.shape[-2:]
    part = pooled.float().flatten(1).norm(dim=1) * math.sqrt(height * width) / GRID
    return (maps.float().flatten(1).norm(dim=1) / part.clamp(min=1e-12)).clamp(min=1)


def plan(images: int, batch: int, classes: int, rows: int) -> list[tuple[int, int]]:
    """Plan the class and the row of aligned prompts of every batch.

    Classes in equal parts, rows in turn, so that each class meets every row.
    """
    batches = -(-images // batch)
    batches = -(-batches // classes) * classes
    cycle = math.lcm(classes, rows)
    return [(b % classes, (b + b // cycle) % rows) for b in range(batches)]
