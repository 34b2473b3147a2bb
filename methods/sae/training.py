"""Train a sparse autoencoder: its settings, its steps and what its checkpoint holds.

In a torch.distributed process group every process takes a part of the images and of each batch, and gradients are averaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ...models.noise_level import at_level
from ...models.sae import BATCH_TOPK, TOPK, SparseAutoencoder
from ..core.checkpoint import Resumable
from ..core.trainer import Progress
from .loss import add_gradients
from .tokens import TokenStream

PER_CHANNEL = 8
"""Features per channel if the settings state none (the expansion that DiffLens uses)."""
RATE = 0.035
"""Learning rate relative to the size of an atom's entries, 1 / sqrt(channels). On the test bed (2,048 images, 1,536 latents, 4,000 steps;
6,000 for 0.06) with k = 24, 0.03, 0.04 and 0.06 left 0.038, 0.036 and 0.034 of the variance unexplained and 0, 1.5 and 17.8% of the latents
dead; with k = 32, 0.035 and 0.04 left 0.029 and 1.7 and 4.7% dead."""
PATIENCE = 500
"""A latent is dead where it has not fired for so many times the tokens in which a latent fires once on average. On the test bed (1,536
latents, k = 24, 1,500 steps) 500 left 1.4% of the latents dead and 1,600 7.4%, at the same error."""
EVERY = 10
"""Steps between two reports."""
THRESHOLD_RATE = 0.02
"""How fast the threshold of BatchTopK follows the smallest activation that batches keep."""


@dataclass(frozen=True)
class SaeSettings:
    """Set how a sparse autoencoder is trained."""

    latents: int = 0
    """Number of features; 0 takes eight times the number of channels."""
    k: int = 16
    """Features that are active at a position."""
    activation: str = TOPK
    """How active features are chosen, one of ``ACTIVATIONS``."""
    steps: int = 4000
    """Number of steps."""
    batch: int = 1024
    """Tokens per step, over all processes."""
    lr: float = 0.0
    """Learning rate of Adam; 0 takes ``RATE`` / sqrt(channels)."""
    warmup: int = 100
    """Steps in which the learning rate rises."""
    decay: float = 0.5
    """Share of the steps, at the end, in which the learning rate falls to zero."""
    aux: float = 1.0
    """Weight of the loss that revives dead features."""
    dead_after: int = 0
    """Tokens without firing after which a feature is dead; 0 takes ``PATIENCE`` * latents / k."""
    k_aux: int = 0
    """Most dead features that take part per token; 0 takes half the number of channels."""
    seed: int = 0
    """Seed of all random numbers."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        start = self.steps * (1 - self.decay)
        fall = 1.0 if step < start else (self.steps - step) / (self.steps - start)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup)) * fall

    def settled(self, channels: int) -> SaeSettings:
        """Return the settings with what depends on the width filled in."""
        latents = self.latents or PER_CHANNEL * channels
        patience = self.dead_after or PATIENCE * latents // max(1, self.k)
        k_aux = self.k_aux or max(1, channels // 2)
        return replace(self, latents=latents, lr=self.lr or RATE / math.sqrt(channels), dead_after=patience, k_aux=k_aux)


def world() -> tuple[int, int]:
    """Return rank and number of processes of the running process group; (0, 1) without one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def summed(x: Tensor) -> Tensor:
    """Sum a tensor over all processes."""
    if world()[1] > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


class SaeTraining(Resumable):
    """Train one autoencoder, step by step.

    ``losses``: unexplained share of the variance at every step; ``since`` int64 [m]: tokens seen since each feature fired.
    """

    def __init__(self, sae: SparseAutoencoder, settings: SaeSettings, data: str = "", path: Path | None = None) -> None:
        """``data``: digest of the features that it is trained on."""
        self.sae, self.settings = sae.requires_grad_(True), settings.settled(sae.channels)
        self.parameters = [sae.encoder, sae.encoder_bias, sae.decoder, sae.bias]
        fused = sae.encoder.device.type in ("cpu", "cuda")
        optimiser = torch.optim.Adam(self.parameters, lr=settings.lr, betas=(0.9, 0.999), fused=fused)
        facts = {**asdict(self.settings), "channels": sae.channels, "processes": world()[1], "data": data}
        super().__init__({"sae": sae}, optimiser, self.settings.steps, json.dumps(facts, sort_keys=True), path)
        self.since = torch.zeros(sae.latents, dtype=torch.long, device=sae.encoder.device)
        self.losses: list[float] = []

    @torch.no_grad()
    def update(self, tokens: Tensor, level: Tensor) -> None:
        """Take one step on this process's part of the batch.

        tokens [N, C] (any dtype) at log-SNR [N].
        """
        sae, s, device = self.sae, self.settings, self.sae.encoder.device
        level = level.to(device)
        scale = at_level(sae.scale, sae.knots, level)
        x = (tokens.to(device).float() - at_level(sae.mean, sae.knots, level)) / scale[:, None]
        dead = (self.since > s.dead_after).nonzero().flatten() if s.aux else None
        step = add_gradients(sae, x, dead, s.aux, s.k_aux)
        loss, fired, seen, lowest = self._shared(step.loss, step.fired, len(x), step.smallest)
        # The part along an atom would only change its length, which is 1.
        atoms = sae.decoder
        atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms
        # To one length: the first gradients are far longer than the later ones, and Adam's second moments would remember them for long.
        length = torch.stack([p.grad.norm() for p in self.parameters]).norm().clamp(min=1e-20)
        for p in self.parameters:
            p.grad /= length
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate(self.step)
        with self.changing():
            self.optimiser.step()
            atoms.copy_(F.normalize(atoms, dim=1))
            if sae.activation == BATCH_TOPK:
                sae.threshold.lerp_(lowest, 1.0 if self.step == 0 else THRESHOLD_RATE)
            self.since += seen
            self.since[fired] = 0
            self.losses.append(float(loss))
            self.step += 1

    def _shared(self, loss: Tensor, fired: Tensor, tokens: int, lowest: Tensor) -> tuple[Tensor, Tensor, int, Tensor]:
        """Average gradients and figures over all processes, in one exchange."""
        processes = world()[1]
        if processes == 1:
            return loss, fired, tokens, lowest
        parts = [*(p.grad for p in self.parameters), loss.reshape(1), lowest.reshape(1), fired.float()]
        flat = torch.cat([p.flatten() for p in parts])
        dist.all_reduce(flat)
        flat /= processes
        pieces = flat.split([p.numel() for p in parts])
        for p, piece in zip(self.parameters, pieces, strict=False):
            p.grad.copy_(piece.view_as(p))
        return pieces[4][0], pieces[6] > 0, tokens * processes, pieces[5][0]

    def train(self, stream: TokenStream, progress: Progress | None = None) -> None:
        """Take the steps that are left; report every ``EVERY`` steps."""
        batches = stream.batches(self.step)

        def take_step() -> None:
            self.update(*next(batches))
            if progress and (self.step % EVERY == 0 or self.done):
                progress(self.step, self.total, self.figures())

        self.run(take_step)

    def figures(self) -> dict[str, float]:
        """Return what a progress line shows."""
        recent = self.losses[-100:]
        return {"FVU": sum(recent) / max(1, len(recent)), "dead": int((self.since > self.settings.dead_after).sum()) / self.sae.latents}

    def save(self) -> None:
        """Write the checkpoint; the first process alone does so."""
        if world()[0] == 0:
            super().save()

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return the losses, and when features last fired."""
        return {"since": self.since, "losses": torch.tensor(self.losses, dtype=torch.float64)}

    def read_extra(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> Callable[[], None]:
        """Check that there is a loss for every step and a count for every feature."""
        since, losses = tensors["since"], tensors["losses"].tolist()
        if (since.shape, since.dtype) != (self.since.shape, torch.long) or len(losses) != step:
            raise ValueError("its losses or features are of another training")

        def load() -> None:
            self.since.copy_(since)
            self.losses = losses

        return load
