"""One training of a sparse autoencoder: its steps, and a checkpoint from which it goes on as if it had not been cut off.

In a torch.distributed process group every process takes a part of the images and of each batch, and gradients are averaged.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ...models.files import DAMAGE, read_safetensors, write_safetensors
from ...models.noise_level import at_level
from ...models.sae import BATCH_TOPK, TOPK, SparseAutoencoder
from ..core.checkpoint import checkpoint_tensors, restore
from ..core.trainer import Progress
from .loss import add_gradients
from .tokens import TokenStream

PER_CHANNEL = 8
"""Latents per channel where none are asked for (the expansion that DiffLens uses)."""
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
    """How to train.

    ``latents``: 0 for eight times as many as there are channels. ``batch``: tokens per step, over all processes. ``lr``: of Adam, after
    ``warmup`` steps and falling to zero over the last share ``decay`` of them; 0 for ``RATE`` / sqrt(channels). ``aux``: weight of the loss
    that revives dead latents, those that have not fired for ``dead_after`` tokens (0: ``PATIENCE`` * latents / k); ``k_aux``: how many of
    them take part per token, at most (0: half as many as there are channels).
    """

    latents: int = 0
    k: int = 16
    activation: str = TOPK
    steps: int = 4000
    batch: int = 1024
    lr: float = 0.0
    warmup: int = 100
    decay: float = 0.5
    aux: float = 1.0
    dead_after: int = 0
    k_aux: int = 0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        start = self.steps * (1 - self.decay)
        fall = 1.0 if step < start else (self.steps - step) / (self.steps - start)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup)) * fall


    def settled(self, channels: int) -> SaeSettings:
        """The same with what depends on the width filled in."""
        latents = self.latents or PER_CHANNEL * channels
        patience = self.dead_after or PATIENCE * latents // max(1, self.k)
        k_aux = self.k_aux or max(1, channels // 2)
        return replace(self, latents=latents, lr=self.lr or RATE / math.sqrt(channels), dead_after=patience, k_aux=k_aux)


def world() -> tuple[int, int]:
    """Rank and number of processes of the running process group; (0, 1) without one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def total(x: Tensor) -> Tensor:
    """Sum over all processes."""
    if world()[1] > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


class SaeTraining:
    """Steps of one training. ``losses``: unexplained share of the variance, of every step done; ``since`` int64 [m]: tokens that were seen
    since each latent fired; ``data``: what tells the features it is trained on from others."""

    def __init__(self, sae: SparseAutoencoder, settings: SaeSettings, data: str = "") -> None:
        self.data = data
        self.sae, self.settings = sae.requires_grad_(True), settings.settled(sae.channels)
        self.parameters = [sae.encoder, sae.encoder_bias, sae.decoder, sae.bias]
        fused = sae.encoder.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, betas=(0.9, 0.999), fused=fused)
        self.since = torch.zeros(sae.latents, dtype=torch.long, device=sae.encoder.device)
        self.step = 0
        self.losses: list[float] = []
        self.seconds = 0.0
        self.whole = True

    @torch.no_grad()
    def update(self, tokens: Tensor, level: Tensor) -> None:
        """One step on tokens [N, C] (any dtype) at log-SNR [N], this process's part of the batch."""
        sae, s, device = self.sae, self.settings, self.sae.encoder.device
        level = level.to(device)
        scale = at_level(sae.scale, sae.knots, level)
        x = (tokens.to(device).float() - at_level(sae.mean, sae.knots, level)) / scale[:, None]
        dead = (self.since > s.dead_after).nonzero().flatten() if s.aux else None
        step = add_gradients(sae, x, dead, s.aux, s.k_aux)
        loss, fired, seen, least = self._shared(step.loss, step.fired, len(x), step.least)
        # The part along an atom would only change its length, which is 1.
        atoms = sae.decoder
        atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms
        # To one length: the first gradients are far longer than the later ones, and Adam's second moments would remember them for long.
        length = torch.stack([p.grad.norm() for p in self.parameters]).norm().clamp(min=1e-20)
        for p in self.parameters:
            p.grad /= length
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.step)
        self.whole = False
        self.optimizer.step()
        atoms.copy_(F.normalize(atoms, dim=1))
        if sae.activation == BATCH_TOPK:
            sae.threshold.lerp_(least, 1.0 if self.step == 0 else THRESHOLD_RATE)
        self.since += seen
        self.since[fired] = 0
        self.losses.append(float(loss))
        self.step += 1
        self.whole = True

    def _shared(self, loss: Tensor, fired: Tensor, tokens: int, least: Tensor) -> tuple[Tensor, Tensor, int, Tensor]:
        """Average gradients and figures over all processes, in one exchange."""
        processes = world()[1]
        if processes == 1:
            return loss, fired, tokens, least
        parts = [*(p.grad for p in self.parameters), loss.reshape(1), least.reshape(1), fired.float()]
        flat = torch.cat([p.flatten() for p in parts])
        dist.all_reduce(flat)
        flat /= processes
        pieces = flat.split([p.numel() for p in parts])
        for p, piece in zip(self.parameters, pieces, strict=False):
            p.grad.copy_(piece.view_as(p))
        return pieces[4][0], pieces[6] > 0, tokens * processes, pieces[5][0]

    def run(self, stream: TokenStream, progress: Progress | None = None, checkpoint: Path | None = None, every: float = 60.0) -> None:
        """Take the steps that are left; a checkpoint every ``every`` seconds, at the end, and where ``progress`` raises."""
        started = saved = time.monotonic()
        before = self.seconds
        try:
            for tokens, level in stream.batches(self.step):
                if self.step >= self.settings.steps:
                    break
                self.update(tokens, level)
                self.seconds = before + time.monotonic() - started
                if progress and (self.step % EVERY == 0 or self.step == self.settings.steps):
                    progress(self.step, self.settings.steps, self.figures())
                if checkpoint and time.monotonic() - saved > every:
                    self.save(checkpoint)
                    saved = time.monotonic()
        finally:
            if checkpoint and self.whole:
                self.save(checkpoint)

    def figures(self) -> dict[str, float]:
        """What a progress line shows."""
        recent = self.losses[-100:]
        return {"FVU": sum(recent) / max(1, len(recent)), "dead": int((self.since > self.settings.dead_after).sum()) / self.sae.latents}

    # -- checkpoints ------------------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write all that the next step depends on to a safetensors file; by the first process alone."""
        if world()[0]:
            return
        tensors = checkpoint_tensors({"sae": self.sae}, self.optimizer)
        tensors["since"] = self.since
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        write_safetensors(path, tensors, {"key": self.key(), "step": str(self.step), "seconds": str(self.seconds)})

    def resume(self, path: Path) -> bool:
        """Go on with what :meth:`save` wrote; False where there is nothing, or a file that is damaged or of another training."""
        try:
            tensors, meta = read_safetensors(path)
            if meta.get("key") != self.key():
                return False
            step, seconds, since, losses = int(meta["step"]), float(meta["seconds"]), tensors["since"], tensors["losses"].tolist()
            if (since.shape, since.dtype) != (self.since.shape, torch.long) or len(losses) != step or not math.isfinite(seconds):
                return False
            restore({"sae": self.sae}, self.optimizer, tensors)
        except (FileNotFoundError, *DAMAGE):
            return False
        self.since.copy_(since)
        self.step, self.seconds, self.losses = step, seconds, losses
        return True

    def key(self) -> str:
        """What a checkpoint must have been made with: settings, size, features and number of processes."""
        facts = {**asdict(self.settings), "channels": self.sae.channels, "processes": world()[1], "data": self.data}
        return json.dumps(facts, sort_keys=True)
