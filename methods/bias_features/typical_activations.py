"""How active features typically are: their mean where they are active, in sampling runs that are left as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.sae import SaeFile
from ..core.rows import read_rows
from ..core.run import Call, Run
from .run import on_map
from .turn_alone import Turn


@dataclass
class ActivationSums:
    """Sums over positions, images, noise levels and runs."""

    total: Tensor
    """Sum of activations by feature, [F]."""
    count: Tensor
    """Number of active positions by feature, [F]."""

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> ActivationSums:
        """Make empty sums for these changes."""
        return cls(torch.zeros(len(turns)), torch.zeros(len(turns)))

    def typical(self) -> list[float | None]:
        """Return the mean activation of every feature.

        None for a feature that was never active.
        """
        return [float(t / n) if n else None for t, n in zip(self.total, self.count, strict=True)]


class ActivationRun(Run):
    """Run that records the activations of features and leaves h as it is.

    Each feature at its positions and noise levels, in the positive's rows.
    """

    what = "the measurement of typical activations"
    cells: Tensor | None = None

    def __init__(self, sae: SaeFile, turns: Sequence[Turn], sums: ActivationSums) -> None:
        super().__init__([sae.site])
        self.sums = sums
        self._sae: Any = sae.sae
        self._features, self._column = torch.tensor([t.latent for t in turns]).unique(return_inverse=True)
        self._places = torch.stack([t.positions.float() for t in turns])
        self._window = torch.tensor([t.window for t in turns])

    def edit(self, site: str, h: Tensor, call: Call) -> Tensor:
        """Record the activations of h [R, C, H, W], and return h itself."""
        level = call.level
        rows = read_rows(h.shape[0], call.options, call.roles)
        listened = ((self._window[:, 0] < level) & (level < self._window[:, 1])).nonzero().flatten()
        if rows is None or not rows.conditional.any() or not len(listened):
            return h
        self._sae = self._sae.on(h.device)
        part = h[rows.conditional.to(h.device)]
        z = self._sae.active(part, torch.full((len(part),), level, device=h.device), self._features.to(h.device))
        at_site = on_map(self._places[listened][None], *h.shape[-2:]).to(h.device) > 0
        z = z[:, self._column[listened].to(h.device)] * at_site
        self.sums.total[listened] += z.sum((0, 2, 3)).cpu()
        self.sums.count[listened] += (z > 0).sum((0, 2, 3)).cpu()
        return h

    def summary(self) -> ActivationRun:
        """Return the run itself.

        Its caller keeps the sums.
        """
        return self

    def release(self) -> None:
        """Drop the autoencoder; the run ends here."""
        super().release()
        self._sae = None
