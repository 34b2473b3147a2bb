"""What every trainer here needs: exact resume, an exponential moving average, a learning-rate schedule and a log."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ...models.files import DAMAGE, read_safetensors, write_safetensors, write_text
from .checkpoint import checkpoint_tensors, restore

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as progress(step, total, figures); may raise to interrupt: the last checkpoint stays."""


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class TrainState:
    """A module in training with its optimiser and moving average, saved as safetensors and resumed exactly.

    ``ema`` holds the averaged copy. Batches have to be drawn from :meth:`generator`, which depends on seed and step alone, so that an
    interrupted training that resumes sees what an uninterrupted one would have seen.
    """

    def __init__(
        self, module: nn.Module, lr: float, total: int, seed: int, warmup: int = 200, weight_decay: float = 0.0, ema: float = 0.999
    ):
        self.module, self.lr, self.total, self.seed, self.warmup, self.decay = module, lr, total, seed, warmup, ema
        self.ema = copy.deepcopy(module).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.seconds = 0.0
        self._whole = True
        self._started = time.monotonic()

    def generator(self) -> torch.Generator:
        """Random numbers of this step."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)

    def update(self, loss: torch.Tensor, clip: float = 1.0) -> float:
        """One optimiser step on ``loss``; returns its value."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * warmup_cosine(self.step, self.total, self.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        # An interrupt from here to the end leaves weights that are a step ahead of their average: such a state is not saved.
        self._whole = False
        self.optimizer.step()
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for averaged, current in zip(self.ema.parameters(), self.module.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)
            for averaged, current in zip(self.ema.buffers(), self.module.buffers(), strict=True):
                averaged.copy_(current)
        self._whole = True
        return loss.item()

    def elapsed(self) -> float:
        """Seconds spent so far, over all the runs."""
        return self.seconds + time.monotonic() - self._started

    def save(self, folder: Path) -> None:
        """Write ``state.safetensors`` and ``log.json`` in a folder."""
        tensors = checkpoint_tensors({"module": self.module, "ema": self.ema}, self.optimizer)
        meta = {"step": str(self.step), "total": str(self.total), "seconds": str(self.elapsed()), "log": json.dumps(self.log)}
        write_safetensors(folder / "state.safetensors", tensors, meta)
        write_text(
            folder / "log.json", json.dumps({"step": self.step, "total": self.total, "seconds": round(self.elapsed()), "log": self.log})
        )

    def resume(self, folder: Path) -> bool:
        """Load what :meth:`save` wrote; False where there is nothing. Raises ValueError, with nothing changed, where it is damaged or of
        another network: hours of training are not to be written over in silence."""
        path = folder / "state.safetensors"
        if not path.is_file():
            return False
        try:
            tensors, meta = read_safetensors(path)
            step, seconds, log = int(meta["step"]), float(meta["seconds"]), list(json.loads(meta["log"]))
            restore({"module": self.module, "ema": self.ema}, self.optimizer, tensors)
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(
                f"'{path.name}' in '{folder.name}' is damaged, or of another training ({reason}): move that folder away to begin anew."
            ) from error
        self.step, self.seconds, self.log = step, seconds, log
        self._started = time.monotonic()
        return True

    def run(
        self, loss_fn: Callable[[torch.Generator], torch.Tensor], folder: Path, progress: Progress | None = None, every: int = 100
    ) -> None:
        """Train to ``total`` steps, resuming what ``folder`` holds; a checkpoint every two minutes, at the end and where it is interrupted
        between two steps (within one, the last checkpoint stays)."""
        self.resume(folder)
        saved, running = time.monotonic(), []
        try:
            while self.step < self.total:
                running.append(self.update(loss_fn(self.generator())))
                if self.step % every == 0 or self.step == self.total:
                    figures = {"step": self.step, "loss": sum(running) / len(running), "seconds": round(self.elapsed(), 1)}
                    self.log.append(figures)
                    running = []
                    if progress:
                        progress(self.step, self.total, figures)
                if time.monotonic() - saved > 120:
                    self.save(folder)
                    saved = time.monotonic()
        finally:
            if self._whole:
                self.save(folder)
