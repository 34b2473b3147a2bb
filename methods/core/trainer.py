"""Trainings of networks and of vectors: the learning rate, the moving average, the log and the loop."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.files import write_text
from .checkpoint import Resumable

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as progress(step, total, figures); may raise to interrupt: the last checkpoint stays."""
VectorLoss = Callable[[int], tuple[Tensor, list[float]]]
"""Called as loss(step); returns the loss and the figures of the step."""
OVERFLOWS = 25
"""Steps in a row without a finite gradient after which a fit of vectors gives up."""
VECTOR_WARMUP = 30
"""Steps of the linear warm-up of a fit of vectors."""


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.02) -> float:
    """Return the learning-rate factor: linear warm-up, then half a cosine down to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class AveragedSettings:
    """Set how a network is trained and averaged."""

    lr: float
    """Highest learning rate of AdamW."""
    total: int
    """Number of steps."""
    seed: int
    """Seed of the random numbers."""
    warmup: int = 200
    """Steps in which the learning rate rises."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    average: float = 0.999
    """Decay of the moving average of the weights."""


class AveragedTraining(Resumable):
    """Train a module and keep a moving average of its weights.

    ``ema`` is the averaged copy. Batches have to be drawn from :meth:`step_generator`, which depends on seed and step alone. The folder
    gets ``state.safetensors`` and ``log.json``.
    """

    save_seconds = 120.0

    def __init__(self, module: nn.Module, settings: AveragedSettings, folder: Path) -> None:
        self.module, self.settings, self.folder = module, settings, folder
        self.ema = copy.deepcopy(module).eval().requires_grad_(False)
        optimiser = torch.optim.AdamW(module.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
        super().__init__({"module": module, "ema": self.ema}, optimiser, settings.total, path=folder / "state.safetensors")
        self.log: list[dict[str, float]] = []
        self._losses: list[float] = []

    def step_generator(self) -> torch.Generator:
        """Return a generator of the random numbers of this step."""
        return torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)

    def update(self, loss: Tensor, clip: float = 1.0) -> float:
        """Take one optimiser step on ``loss``; return its value."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr * warmup_cosine(self.step, self.total, self.settings.warmup)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        with self.changing():  # the weights are a step ahead of their average in here
            self.optimiser.step()
            self.step += 1
            decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for averaged, current in zip(self.ema.parameters(), self.module.parameters(), strict=True):
                    averaged.lerp_(current, 1 - decay)
                for averaged, current in zip(self.ema.buffers(), self.module.buffers(), strict=True):
                    averaged.copy_(current)
        return loss.item()

    def train(self, loss_of: Callable[[torch.Generator], Tensor], progress: Progress | None = None, every: int = 100) -> None:
        """Resume and train to the end; log the mean loss ``every`` steps."""

        def take_step() -> None:
            self._losses.append(self.update(loss_of(self.step_generator())))
            if self.step % every and not self.done:
                return
            figures = {"step": self.step, "loss": sum(self._losses) / len(self._losses), "seconds": round(self.elapsed(), 1)}
            self.log.append(figures)
            self._losses = []
            if progress:
                progress(self.step, self.total, figures)

        self.resume()
        self.run(take_step)

    def save(self) -> None:
        """Write the checkpoint and the log."""
        super().save()
        record = {"step": self.step, "total": self.total, "seconds": round(self.elapsed()), "log": self.log}
        write_text(self.folder / "log.json", json.dumps(record))

    def refused(self, path: Path, error: Exception) -> None:
        """Raise ValueError: hours of training must not be written over without notice."""
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"'{path.name}' in '{path.parent.name}' is damaged or belongs to another training ({reason}): move that folder away to start "
            "anew."
        ) from error

    def extra_facts(self) -> dict[str, Any]:
        """Return the log, and the losses since its last entry."""
        return {"log": self.log, "losses": self._losses}

    def read_extra(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> Callable[[], None]:
        """Check the log."""
        log, losses = [dict(entry) for entry in facts["log"]], [float(loss) for loss in facts["losses"]]

        def load() -> None:
            self.log, self._losses = log, losses

        return load


class VectorFit(Resumable):
    """Fit vectors by attribute, through a network that stays as it is.

    ``vectors``: attribute -> parameter [T, K, R, C, 4, 4]; ``measured``: tensors that were measured before the first step; ``history``: for
    every step, the figures named in ``columns``.
    """

    def __init__(self, vectors: Mapping[str, Tensor], lr: float, total: int, seed: int, columns: tuple[str, ...]) -> None:
        """``vectors``: where the fit starts, on the device that it runs on."""
        self.vectors = {a: nn.Parameter(v.detach().clone(memory_format=torch.contiguous_format)) for a, v in vectors.items()}
        optimiser = torch.optim.Adam(self.vectors.values(), lr=lr, betas=(0.9, 0.99))
        modules = {"vectors": nn.ParameterList(self.vectors.values())}
        super().__init__(modules, optimiser, total, generator=torch.Generator().manual_seed(seed))
        self.lr, self.columns = lr, columns
        self.measured: dict[str, Tensor] = {}
        self.history: list[list[float]] = []
        self.after_step: Callable[[int, int], None] | None = None
        """Called as after_step(step, total) after every step; may raise to interrupt the fit."""

    def update(self, loss: Tensor, figures: list[float], scale: float = 1.0) -> bool:
        """Take one optimiser step on ``loss``.

        ``scale``: factor of the loss while gradients are taken, for models in half precision.

        Returns False if the gradient was not finite; the vectors then stay as they are.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * warmup_cosine(self.step, self.total, VECTOR_WARMUP)
        self.optimiser.zero_grad(set_to_none=True)
        (loss if scale == 1.0 else loss * scale).backward()
        gradients = [v.grad for v in self.vectors.values() if v.grad is not None]
        finite = all(bool(g.isfinite().all()) for g in gradients)
        with self.changing():
            if finite:
                if scale != 1.0:
                    for g in gradients:
                        g.div_(scale)
                self.optimiser.step()
            self.step += 1
            self.history.append(figures)
        return finite

    def fit(self, loss_of: VectorLoss, progress: Progress | None = None, scale: float = 1.0) -> None:
        """Take the steps that are left.

        Raises ValueError if gradients are not finite for many steps in a row.
        """
        overflows = 0

        def take_step() -> None:
            nonlocal overflows
            loss, figures = loss_of(self.step)
            overflows = 0 if self.update(loss, figures, scale) else overflows + 1
            if overflows == OVERFLOWS:
                raise ValueError(
                    f"the gradient through this model was not finite for {OVERFLOWS} steps in a row, as happens in half precision: run "
                    "the model in bf16 or fp32 and queue again."
                )
            if progress and self.step % 50 == 0:
                recent = torch.tensor(self.history[-50:]).nanmean(0)
                progress(self.step, self.total, {c: float(v) for c, v in zip(self.columns, recent, strict=True)})
            if self.after_step:
                self.after_step(self.step, self.total)

        self.run(take_step)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return the history and what was measured."""
        history = torch.tensor(self.history, dtype=torch.float64).reshape(len(self.history), len(self.columns))
        return {"history": history, **{f"measured.{name}": v for name, v in self.measured.items()}}

    def read_extra(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> Callable[[], None]:
        """Check that the history has a row for every step."""
        history = tensors["history"]
        if tuple(history.shape) != (step, len(self.columns)):
            raise ValueError(f"its history is {list(history.shape)} after {step} steps")
        measured = {name.partition(".")[2]: v for name, v in tensors.items() if name.startswith("measured.")}

        def load() -> None:
            self.history, self.measured = history.tolist(), measured

        return load

    def curve(self, points: int = 40) -> list[tuple[int, dict[str, float]]]:
        """Average the figures over equal stretches of steps.

        A figure that a stretch does not have is left out (NaN).
        """
        size = max(1, -(-len(self.history) // points))
        table = torch.tensor(self.history, dtype=torch.float64).reshape(-1, len(self.columns))
        averages: list[tuple[int, dict[str, float]]] = []
        for part in table.split(size):
            mean = part.nanmean(0)
            end = (averages[-1][0] if averages else 0) + len(part)
            averages.append((end, {c: float(v) for c, v in zip(self.columns, mean, strict=True) if v.isfinite()}))
        return averages
