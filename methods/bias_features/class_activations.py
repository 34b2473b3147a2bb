"""Mean activations of an autoencoder's features by class, noise level and place: the first pass over a feature set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .code_stream import CodeRows
from .linear_readout import CELLS

SIGNIFICANT = 2.0
"""A class differs from the others at a place where their means are apart by more than this many standard errors."""


@dataclass(frozen=True)
class ClassMeans:
    """Mean activations of one attribute's classes."""

    count: Tensor
    """Rows, [T, K]."""
    mean: Tensor
    """Means, [T, K, m, 16]."""
    error: Tensor
    """Squared standard errors of the means, [T, K, m, 16]."""

    @property
    def centre(self) -> Tensor:
        """Mean of the classes, each counting alike: [T, m, 16]."""
        return self.mean.mean(1)

    @property
    def share(self) -> Tensor:
        """Share of all rows at each knot: [T]."""
        rows = self.count.sum(1)
        return rows / rows.sum().clamp(min=1)

    def difference(self, k: int) -> Tensor:
        """Subtract the mean of the other classes from class k's: [T, m, 16].

        Each of the other classes counts alike.
        """
        others = [j for j in range(self.mean.shape[1]) if j != k]
        return self.mean[:, k] - self.mean[:, others].mean(1)

    def signs(self, k: int) -> Tensor:
        """Return where class k's features are more active (1) or less (-1).

        [T, m, 16]; 0 if the difference may be chance.
        """
        others = [j for j in range(self.mean.shape[1]) if j != k]
        error = (self.error[:, k] + self.error[:, others].sum(1) / len(others) ** 2).sqrt()
        d = self.difference(k)
        return d.sign() * (d.abs() > SIGNIFICANT * error)


class ClassSums:
    """Sums of activations by class.

    knots: log-SNR [T]; a row counts at the nearest. classes: attribute -> class of each image int64 [N], -1 for none. sizes: attribute ->
    K. Memory: 2 T m 16 floats for every class of every attribute.
    """

    def __init__(self, knots: Tensor, latents: int, classes: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
        self.knots, self.classes, self.sizes = knots, classes, sizes
        total = sum(sizes.values())
        self._count = torch.zeros(len(knots), total)
        self._sum = torch.zeros(len(knots), total, latents * CELLS)
        self._square = torch.zeros_like(self._sum)

    def add(self, rows: CodeRows) -> None:
        """Add the activations of rows to the sums of their classes."""
        t = nearest(self.knots, rows.level)
        chosen = torch.cat([one_hot(self.classes[a][rows.images], k) for a, k in self.sizes.items()], 1).T
        z = rows.z.flatten(1)
        self._count[t] += chosen.sum(1)
        self._sum[t].addmm_(chosen, z)
        self._square[t].addmm_(chosen, z * z)

    def means(self, attribute: str) -> ClassMeans:
        """Average the activations by class of one attribute.

        0 where there are no rows.
        """
        first = sum(k for a, k in list(self.sizes.items())[: list(self.sizes).index(attribute)])
        mine = slice(first, first + self.sizes[attribute])
        count = self._count[:, mine]
        n = count.clamp(min=1)[..., None]
        mean = self._sum[:, mine] / n
        variance = (self._square[:, mine] / n - mean**2).clamp(min=0)
        return ClassMeans(count, mean.unflatten(-1, (-1, CELLS)), (variance / n).unflatten(-1, (-1, CELLS)))


def nearest(knots: Tensor, level: float) -> int:
    """Return the index of the nearest knot."""
    return int((knots - level).abs().argmin())


def one_hot(classes: Tensor, k: int) -> Tensor:
    """Turn classes int64 [n] into float32 [n, k].

    A class of -1 gives zeros.
    """
    return (classes[:, None] == torch.arange(k)).float()
