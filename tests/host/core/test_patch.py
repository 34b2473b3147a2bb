"""A patch attaches runs of any kind, tells its observers, and stands on few modules."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise_unet import MIDDLE, Scene, tiny_sd
from torch import Tensor

MOST_MODULES = 20


class Watcher:
    """Notes the events that it is told of."""

    watches_steps = True

    def __init__(self, events: list[Any], name: str) -> None:
        self._events, self._name = events, name

    def started(self, run: Any, start: Any) -> None:
        self._events.append((self._name, "started", run.images))

    def stepped(self, run: Any, step: int, steps: int) -> None:
        self._events.append((self._name, step, steps))

    def ended(self, run: Any, samples: Any) -> None:
        self._events.append((self._name, "ended"))

    def failed(self, run: Any) -> None:
        self._events.append((self._name, "failed"))


def listening(events: list[Any], broken: bool = False) -> Any:
    """A run that reads h in the middle block."""
    from equipoise.methods.core.run import Call, Run

    class Listening(Run):
        def edit(self, site: str, h: Tensor, call: Call) -> Tensor:
            assert copy.deepcopy({"run": self})["run"] is self
            if broken:
                raise RuntimeError("broken")
            events.append((site, tuple(h.shape[:2]), call.level == self.level_of(call.sigma)))
            return h

        def finish(self) -> None:
            events.append("finish")

        def release(self) -> None:
            super().release()
            events.append("release")

    return Listening([MIDDLE[0]])


def test_events_come_in_order_and_h_stays_as_it_was(prompt: Any) -> None:
    from equipoise.host.core.patch import patch_model

    scene, events = Scene(prompt, tiny_sd()), []
    patched, _ = patch_model(scene.model, lambda: listening(events), [Watcher(events, "a"), Watcher(events, "b")])
    assert torch.equal(scene.but(model=patched).sample(), scene.sample())
    images = events[0][2]
    assert events[:2] == [("a", "started", images), ("b", "started", images)]
    assert events[-4:] == ["finish", ("a", "ended"), ("b", "ended"), "release"]
    visits = [e for e in events if e[0] == MIDDLE[0]]
    assert visits and all(exact and shape[1] == MIDDLE[1] for _, shape, exact in visits)
    steps = [e[1:] for e in events if e[0] == "a" and isinstance(e[1], int)]
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))] and steps


def test_a_run_that_fails_is_told_of_and_released(prompt: Any) -> None:
    from equipoise.host.core.patch import patch_model

    scene, events = Scene(prompt, tiny_sd()), []
    patched, _ = patch_model(scene.model, lambda: listening(events, broken=True), [Watcher(events, "a")])
    with pytest.raises(RuntimeError, match="broken"):
        scene.but(model=patched).sample()
    assert events[1:] == [("a", "failed"), "release"]


def test_settings_are_checked_without_a_run(monkeypatch: pytest.MonkeyPatch, prompt: Any, load_module: Any, repository: Path) -> None:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.core.batch_run import BatchRun
    from equipoise.methods.core.targets import make_target
    from equipoise.methods.guidance.run import GuidanceSettings

    adp = random_adp({"hair": ("short", "long")}, MIDDLE[1], base_model="sd15")
    monkeypatch.setattr(BatchRun, "__init__", lambda *_: pytest.fail("a run was made"))
    apply_guidance(tiny_sd(), adp, GuidanceSettings(make_target({"hair": {"short": 1, "long": 1}})))
    with pytest.raises(ValueError, match="names the attribute 'hat'"):
        apply_guidance(tiny_sd(), adp, GuidanceSettings(make_target({"hat": {"no": 1, "yes": 1}})))


def test_the_patch_stands_on_few_modules(repository: Path) -> None:
    closure, ahead = set(), [repository / "host" / "core" / "patch.py"]
    while ahead:
        path = ahead.pop()
        if path in closure:
            continue
        closure.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1] / (node.module or "").replace(".", "/")
                ahead += [p for p in (folder.with_suffix(".py"), *(folder / f"{a.name}.py" for a in node.names)) if p.is_file()]
    names = {str(p.relative_to(repository)) for p in closure}
    assert len(names) <= MOST_MODULES, sorted(names)
    assert not [n for n in names if n.startswith(("host/ledger", "host/labels", "benchmarks", "methods/guidance"))]
