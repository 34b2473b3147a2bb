"""Checkpoints of trainings: written whole or not at all, and resumed exactly or not at all."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.files import DAMAGE, read_safetensors, write_safetensors

SLOTS = ("step", "exp_avg", "exp_avg_sq")
"""Tensors that Adam and AdamW store for a parameter."""
NOTHING, RESUMED, STALE = "", "resumed", "stale"
"""Results of :meth:`Resumable.resume`: there is no checkpoint; it was loaded; it is damaged or of another training."""
EXTRA = "extra."
"""Prefix of the tensors that a kind of training adds."""


class Resumable:
    """Save, resume and run one training, so that an interruption does not change its result.

    A checkpoint holds the networks, the optimiser, the random numbers, the number of steps and what a subclass adds
    (:meth:`extra_tensors`, :meth:`extra_facts`, :meth:`read_extra`). Batches must depend on ``generator``, or on the step alone.
    """

    save_seconds = 60.0
    """Seconds between two checkpoints of a run."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimiser: torch.optim.Adam,
        total: int,
        key: str = "",
        path: Path | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """``total``: number of steps.

        ``key``: all that the result depends on, as text; a checkpoint with another key is not loaded. ``path``: file of the checkpoint;
        None keeps none. ``generator``: source of the training's random numbers.
        """
        self.modules, self.optimiser, self.total = dict(modules), optimiser, total
        self.key, self.path, self.generator = key, path, generator
        self.step = 0
        self.seconds = 0.0
        self._consistent = True
        self._started: float | None = None
        self._saved_step: int | None = None

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.step >= self.total

    def elapsed(self) -> float:
        """Return the seconds that the training has run, over all its runs."""
        return self.seconds + (0.0 if self._started is None else time.monotonic() - self._started)

    def _count_seconds(self) -> None:
        if self._started is not None:
            now = time.monotonic()
            self.seconds, self._started = self.seconds + now - self._started, now

    # -- what a kind of training adds ---------------------------------------------------------------------------------------------------

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return further tensors of the checkpoint."""
        return {}

    def extra_facts(self) -> dict[str, Any]:
        """Return further facts of the checkpoint, as JSON knows them."""
        return {}

    def read_extra(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], step: int) -> Callable[[], None]:
        """Check the additions of a checkpoint with ``step`` steps; return a function that loads them.

        Raises one of ``DAMAGE``, with nothing changed, if they do not fit.
        """
        return lambda: None

    # -- saving and resuming ------------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint, if there is a path for it."""
        if self.path is None:
            return
        self._count_seconds()
        tensors = checkpoint_tensors(self.modules, self.optimiser)
        tensors |= {EXTRA + name: value for name, value in self.extra_tensors().items()}
        if self.generator is not None:
            tensors["generator"] = self.generator.get_state()
        facts = json.dumps(self.extra_facts())
        write_safetensors(self.path, tensors, {"key": self.key, "step": str(self.step), "seconds": str(self.seconds), "facts": facts})
        self._saved_step = self.step

    def resume(self) -> str:
        """Load the checkpoint; return NOTHING, RESUMED or STALE. Changes nothing unless it returns RESUMED."""
        if self.path is None or not self.path.is_file():
            return NOTHING
        try:
            self._load(self.path)
        except FileNotFoundError:
            return NOTHING
        except DAMAGE as error:
            self.refused(self.path, error)
            return STALE
        return RESUMED

    def refused(self, path: Path, error: Exception) -> None:
        """Handle a checkpoint that cannot be loaded.

        Does nothing here, so that the training starts anew and writes over it.
        """

    def _load(self, path: Path) -> None:
        tensors, meta = read_safetensors(path)
        if meta.get("key") != self.key:
            raise ValueError("it was made with other settings or data")
        step, seconds, facts = int(meta["step"]), float(meta["seconds"]), json.loads(meta["facts"])
        if step < 0 or not math.isfinite(seconds):
            raise ValueError(f"it states {step} steps in {seconds} seconds")
        if self.generator is not None:
            torch.Generator().set_state(tensors["generator"])
        extra = {name[len(EXTRA) :]: value for name, value in tensors.items() if name.startswith(EXTRA)}
        load_extra = self.read_extra(extra, facts, step)
        restore(self.modules, self.optimiser, tensors)
        load_extra()
        if self.generator is not None:
            self.generator.set_state(tensors["generator"])
        self.step, self.seconds, self._saved_step = step, seconds, step

    # -- running ------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark a change of several parts of the state.

        If it is interrupted, the run keeps the last checkpoint instead of saving.
        """
        self._consistent = False
        yield
        self._consistent = True

    def run(self, take_step: Callable[[], None]) -> None:
        """Call ``take_step`` until the training is done; it must raise ``step`` by one.

        Saves regularly, at the end and when an exception interrupts the run between two steps.
        """
        if self.done:
            return
        self._started = saved = time.monotonic()
        try:
            while not self.done:
                self._take(take_step)
                if self.path is not None and time.monotonic() - saved >= self.save_seconds:
                    self.save()
                    saved = time.monotonic()
        finally:
            # A finished training that is loaded again must state the seconds of its checkpoint.
            if self.path is None or self._saved_step != self.step:
                self._count_seconds()
            self._started = None
            if self._consistent and self._saved_step != self.step:
                self.save()

    def _take(self, take_step: Callable[[], None]) -> None:
        """Take one step.

        An interruption may fall between its random numbers and its update: they are then drawn again.
        """
        step, drawn = self.step, None if self.generator is None else self.generator.get_state()
        try:
            take_step()
        except BaseException:
            if drawn is not None and self.step == step:
                self.generator.set_state(drawn)
            raise


def checkpoint_tensors(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Collect the tensors of networks, under their names, and of an optimiser."""
    tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for index, slot in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
    return tensors


def restore(modules: Mapping[str, nn.Module], optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Load what :func:`checkpoint_tensors` collected; ignores other tensors.

    Raises ValueError, with nothing changed, if a tensor is missing, has another shape or type, or is not finite.
    """
    stored = {name: _part(tensors, f"{name}.") for name in modules}
    for name, module in modules.items():
        _check(stored[name], {k: (v.shape, v.dtype) for k, v in module.state_dict().items()}, name)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        index, _, name = key.partition(".")
        if not index.isascii() or not index.isdecimal() or int(index) >= len(parameters):
            raise ValueError(f"'optimizer.{key}' belongs to no parameter")
        slots.setdefault(int(index), {})[name] = value
    for index, slot in slots.items():
        p = parameters[index]
        shapes = {"step": torch.Size(), "exp_avg": p.shape, "exp_avg_sq": p.shape}
        _check(slot, {k: (shapes[k], torch.float32 if k == "step" else p.dtype) for k in SLOTS}, f"optimizer.{index}")
    for name, module in modules.items():
        module.load_state_dict(stored[name])
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _check(stored: Mapping[str, Tensor], wanted: Mapping[str, tuple[torch.Size, torch.dtype]], name: str) -> None:
    if stored.keys() != wanted.keys():
        raise ValueError(f"'{name}' lacks or has too many of its tensors ({', '.join(sorted(stored.keys() ^ wanted.keys())[:3])})")
    for key, (shape, dtype) in wanted.items():
        value = stored[key]
        if (value.shape, value.dtype) != (shape, dtype):
            raise ValueError(f"'{name}.{key}' is {value.dtype} {list(value.shape)}, and {dtype} {list(shape)} was expected")
        if not bool(value.isfinite().all()):
            raise ValueError(f"'{name}.{key}' is not finite")
