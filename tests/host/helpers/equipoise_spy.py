"""Record what guidance or steering does in the host's sampling.

It sees which rows of which call change, and which runs are alive.
"""

from __future__ import annotations

import importlib
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One visit of a run."""

    site: str
    """Site."""
    marks: tuple[int, ...]
    """The host's cond_or_uncond."""
    shape: tuple[int, ...]
    """Shape of h."""
    changed: tuple[bool, ...]
    """Per row, whether the run changed h."""
    sigma: float
    """Noise level."""

    @property
    def by_chunk(self) -> list[tuple[int, bool]]:
        """Return (mark, changed) per chunk; all rows of a chunk must agree."""
        size = len(self.changed) // len(self.marks)
        chunks = [self.changed[i * size : (i + 1) * size] for i in range(len(self.marks))]
        assert all(len(set(chunk)) == 1 for chunk in chunks), f"some rows of a chunk were changed and some not: {self}"
        return [(mark, chunk[0]) for mark, chunk in zip(self.marks, chunks, strict=True)]


class Spy:
    """Record every call of a run's edit, and every run that the host makes.

    It holds runs by weak references. ``what``: "guidance" (GuidanceRun) or "steering" (SteeringRun).
    """

    def __init__(self, patch: pytest.MonkeyPatch, what: str = "guidance") -> None:
        kind = f"{what.title()}Run"
        room = {"guidance": "guidance", "steering": "bias_features"}[what]
        host_module = importlib.import_module(f"equipoise.host.{room}.apply")
        made_there = getattr(importlib.import_module(f"equipoise.methods.{room}.run"), kind)
        self.calls: list[Call] = []
        self.runs: list[weakref.ref[Any]] = []
        edit = made_there.edit

        def seen(run: Any, site: str, h: Tensor, call: Any) -> Tensor:
            out = edit(run, site, h, call)
            changed = tuple((out != h).flatten(1).any(1).tolist())
            self.calls.append(Call(site, tuple(call.options["cond_or_uncond"]), tuple(h.shape), changed, call.sigma))
            return out

        def made(*args: Any, **kwargs: Any) -> Any:
            run = made_there(*args, **kwargs)
            self.runs.append(weakref.ref(run))
            return run

        patch.setattr(made_there, "edit", seen)
        patch.setattr(host_module, kind, made)

    @property
    def alive(self) -> int:
        return sum(run() is not None for run in self.runs)

    def at(self, site: str) -> list[Call]:
        return [call for call in self.calls if call.site == site]

    def chunks(self, site: str = "middle") -> set[tuple[int, bool]]:
        """List every (mark, changed) that was seen at a site."""
        return {pair for call in self.at(site) for pair in call.by_chunk}
