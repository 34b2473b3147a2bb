"""Measure what a sparse autoencoder leaves unexplained on held-out images, by noise level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.sae import BATCH_TOPK, SparseAutoencoder

MOST_TOKENS = 2**19
"""Tokens after which an evaluation ends."""


@dataclass(frozen=True)
class SaeReport:
    """Hold the figures of an autoencoder on held-out images."""

    fvu: float
    """Squared error over variance of the normalised features, all levels together."""
    l0: float
    """Latents active per position."""
    dead_share: float
    """Share of the latents that no token excited."""
    fvu_by_log_snr: list[list[float]]
    """[[log-SNR, FVU, latents active per position], ...]."""
    tokens: int
    """Tokens that were measured."""
    frequency: Tensor
    """Share of the tokens that excited each latent [m]."""

    def info(self) -> dict[str, Any]:
        """Return the figures for the file."""
        return {
            "fvu": round(self.fvu, 5),
            "l0": round(self.l0, 2),
            "dead_share": round(self.dead_share, 5),
            "fvu_by_log_snr": self.fvu_by_log_snr,
            "held_out_tokens": self.tokens,
        }


@torch.no_grad()
def evaluate(
    sae: SparseAutoencoder,
    rows: Iterable[tuple[Tensor, Tensor]],
    total: Callable[[Tensor], Tensor] = lambda x: x,
    most: int = MOST_TOKENS,
) -> SaeReport:
    """Measure an autoencoder on features, on the CPU.

    features [rows, C, H, W] with log-SNR [rows]; ``total`` adds up over processes.

    Levels are those of the nearest knots. Sums are made in float64, on the CPU.
    """
    knots, device = sae.knots, sae.encoder.device
    levels = len(knots)
    count, error, square, active = (torch.zeros(levels, dtype=torch.float64) for _ in range(4))
    sums = torch.zeros(levels, sae.channels, dtype=torch.float64)
    fired = torch.zeros(sae.latents, dtype=torch.float64)
    for features, level in rows:
        for part, at in zip(features.split(256), level.split(256), strict=True):
            x = sae.normalise(part.to(device), at.to(device)).movedim(1, -1).flatten(0, 2)
            wrong = (sae.reconstruct_tokens(x) - x).pow(2).sum(1).cpu().double()
            on = _fired(sae, x)
            nearest = (at[:, None] - knots.cpu()[None]).abs().argmin(1).repeat_interleave(len(x) // len(at))
            x = x.cpu().double()
            count += torch.bincount(nearest, minlength=levels)
            error.index_add_(0, nearest, wrong)
            square.index_add_(0, nearest, x.pow(2).sum(1))
            sums.index_add_(0, nearest, x)
            active.index_add_(0, nearest, on[0].cpu().double())
            fired += on[1].cpu()
        if count.sum() >= most:
            break
    count, error, square, active, sums, fired = (total(v) for v in (count, error, square, active, sums, fired))
    n = float(count.sum())
    if not n:
        raise ValueError("there are no held-out features to measure on: record more images.")
    spread = square - sums.pow(2).sum(1) / count.clamp(min=1)
    table = [
        [round(float(knots[i]), 3), round(float(error[i] / spread[i].clamp(min=1e-12)), 5), round(float(active[i] / count[i]), 2)]
        for i in range(levels)
        if count[i]
    ]
    spread_of_all = square.sum() - sums.sum(0).pow(2).sum() / n
    return SaeReport(
        fvu=float(error.sum() / spread_of_all.clamp(min=1e-12)),
        l0=float(active.sum()) / n,
        dead_share=float((fired == 0).double().mean()),
        fvu_by_log_snr=table,
        tokens=int(n),
        frequency=(fired / n).float(),
    )


def _fired(sae: SparseAutoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Count active features per token [N], and active tokens per feature [m]."""
    if sae.activation == BATCH_TOPK:
        on = sae.preactivations(x) > sae.threshold.clamp(min=0)
        return on.sum(1), on.sum(0).double()
    values, chosen = sae.encode_tokens(x)
    on = values > 0
    return on.sum(1), torch.bincount(chosen[on], minlength=sae.latents).double()
