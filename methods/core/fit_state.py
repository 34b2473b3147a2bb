"""State of a fit of moves: the vectors and all that the next step depends on, so that a fit that was cut off ends as if it had not been."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ...models.files import read_safetensors, write_safetensors
from .trainer import Progress, warmup_cosine

SIGNATURE = "signature"
OVERFLOWS = 25
"""Steps in a row without a finite gradient after which a fit gives up."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit is kept: a safetensors file, written whole or not at all every ``seconds`` and when the fit ends or is interrupted.

    ``signature``: all settings, in words; a file with another one is begun anew. ``every_step``: called after each step; may raise, which
    interrupts the fit.
    """

    path: Path
    signature: str
    seconds: float = 60.0
    every_step: Callable[[int, int], None] | None = None


@dataclass
class FitState:
    """``vectors``: attribute -> parameter [T, K, R, C, 4, 4]; ``fixed``: what was measured before the first step; ``history``: per step
    done, the figures named in ``columns``; ``whole``: False in the middle of a step."""

    vectors: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    lr: float
    steps: int
    columns: tuple[str, ...]
    step: int = 0
    fixed: dict[str, Tensor] = field(default_factory=dict)
    history: list[list[float]] = field(default_factory=list)
    whole: bool = True

    @staticmethod
    def new(
        shapes: Mapping[str, tuple[int, ...]], device: torch.device, lr: float, steps: int, seed: int, columns: tuple[str, ...]
    ) -> FitState:
        """Vectors of zeros of these shapes, on the device."""
        vectors = {a: nn.Parameter(torch.zeros(shape, device=device)) for a, shape in shapes.items()}
        optimizer = torch.optim.Adam(vectors.values(), lr=lr, betas=(0.9, 0.99))
        return FitState(vectors, optimizer, torch.Generator().manual_seed(seed), lr, steps, columns)

    def update(self, loss: Tensor, figures: list[float], scale: float = 1.0) -> bool:
        """One optimiser step on ``loss``. ``scale``: of the loss before gradients are taken, for models in half precision.

        Returns False where the gradient was not finite; the vectors then stay as they are.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * warmup_cosine(self.step, self.steps, 30)
        self.optimizer.zero_grad(set_to_none=True)
        (loss if scale == 1.0 else loss * scale).backward()
        gradients = [v.grad for v in self.vectors.values() if v.grad is not None]
        finite = all(bool(g.isfinite().all()) for g in gradients)
        self.whole = False
        if finite:
            if scale != 1.0:
                for g in gradients:
                    g.div_(scale)
            self.optimizer.step()
        self.step += 1
        self.history.append(figures)
        self.whole = True
        return finite

    def save(self, path: Path, signature: str) -> None:
        """Write everything to a safetensors file."""
        tensors = {f"vectors.{a}": v.detach() for a, v in self.vectors.items()}
        tensors |= {f"fixed.{name}": v for name, v in self.fixed.items()}
        for index, slot in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
        tensors["generator"] = self.generator.get_state()
        tensors["history"] = torch.tensor(self.history, dtype=torch.float64).reshape(len(self.history), len(self.columns))
        write_safetensors(path, tensors, {SIGNATURE: signature, "step": str(self.step)})

    def resume(self, path: Path, signature: str) -> str:
        """Load what :meth:`save` wrote. Returns "", "resumed", or "stale" where the file is of other settings or no fit at all (and is
        not read)."""
        if not path.is_file():
            return ""
        try:
            tensors, meta = read_safetensors(path)
        except ValueError:
            return "stale"
        if meta.get(SIGNATURE) != signature or not self._fits(tensors, meta):
            return "stale"
        with torch.no_grad():
            for a, v in self.vectors.items():
                v.copy_(tensors[f"vectors.{a}"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                index, _, name = rest.partition(".")
                slots.setdefault(int(index), {})[name] = value
            elif kind == "fixed":
                self.fixed[rest] = value
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.history = tensors["history"].tolist()
        self.step = int(meta["step"])
        return "resumed"

    def _fits(self, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> bool:
        """Whether all is there, of the shapes that it has here: a damaged file is never half taken over."""
        shapes = {a: tuple(v.shape) for a, v in self.vectors.items()}
        step = meta.get("step", "")
        whole = step.isascii() and step.isdigit() and "history" in tensors and "generator" in tensors
        if not whole or tuple(tensors["history"].shape) != (int(step[:9]), len(self.columns)):
            return False
        stored = {f"vectors.{a}": shape for a, shape in shapes.items()}
        slots = [s for i, s in enumerate(shapes.values()) if any(k.startswith(f"optimizer.{i}.") for k in tensors)]
        for i, shape in enumerate(slots):
            stored |= {f"optimizer.{i}.step": (), f"optimizer.{i}.exp_avg": shape, f"optimizer.{i}.exp_avg_sq": shape}
        known = {k for k in tensors if not k.startswith(("fixed.", "history", "generator"))}
        if known != stored.keys() or any(tuple(tensors[k].shape) != shape for k, shape in stored.items()):
            return False
        state = self.generator.get_state()
        try:
            torch.Generator().set_state(tensors["generator"])
        except (RuntimeError, TypeError):
            return False
        return tensors["generator"].shape == state.shape and all(bool(tensors[k].isfinite().all()) for k in stored)

    def curve(self, points: int = 40) -> list[tuple[int, dict[str, float]]]:
        """Figures by step, averaged over equal stretches; a figure that a step does not have (NaN) is left out."""
        size = max(1, -(-len(self.history) // points))
        table = torch.tensor(self.history, dtype=torch.float64).reshape(-1, len(self.columns))
        found = []
        for part in table.split(size):
            mean = part.nanmean(0)
            end = (found[-1][0] if found else 0) + len(part)
            found.append((end, {c: float(v) for c, v in zip(self.columns, mean, strict=True) if v.isfinite()}))
        return found


Step = Callable[[int], tuple[Tensor, list[float]]]
"""step -> (loss, figures)."""


def run_fit(
    state: FitState, step_loss: Step, checkpoint: Checkpoint | None = None, progress: Progress | None = None, scale: float = 1.0
) -> None:
    """Take the steps that are left. Raises ValueError where gradients are not finite for many steps on end; a raising callback
    interrupts, and what is done stays in the checkpoint."""
    saved, broken = time.monotonic(), 0
    try:
        while state.step < state.steps:
            before = state.generator.get_state()  # an interrupt may fall between the draw of random numbers and the step
            try:
                loss, figures = step_loss(state.step)
            except BaseException:
                state.generator.set_state(before)
                raise
            broken = 0 if state.update(loss, figures, scale) else broken + 1
            if broken == OVERFLOWS:
                raise ValueError(
                    f"the gradient through this model was not finite for {OVERFLOWS} steps on end, as happens in half precision: run the "
                    "model in bf16 or fp32 and queue again."
                )
            if progress and state.step % 50 == 0:
                recent = torch.tensor(state.history[-50:]).nanmean(0)
                progress(state.step, state.steps, {c: float(v) for c, v in zip(state.columns, recent, strict=True)})
            if checkpoint is not None:
                if checkpoint.every_step:
                    checkpoint.every_step(state.step, state.steps)
                if time.monotonic() - saved > checkpoint.seconds:
                    state.save(checkpoint.path, checkpoint.signature)
                    saved = time.monotonic()
    finally:
        if checkpoint is not None and state.whole:
            state.save(checkpoint.path, checkpoint.signature)
