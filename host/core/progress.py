"""Progress of long work: the node's bar, stages and estimates in ComfyUI's log, and interruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from PIL import Image

from ...methods.core.trainer import Progress

log = logging.getLogger("equipoise")

FIRST_ESTIMATE = 5.0
"""Seconds after which the first estimate is written; shorter work writes none."""
NEXT_ESTIMATE = 120.0
"""Seconds between later estimates."""


class WorkStage:
    """Report one stage of long work.

    It moves the node's bar, and writes to ComfyUI's log how much there is to do, an estimate of the time after the first seconds, and how
    long it took. ``what``: the node and the stage. ``total``: number of steps. ``clock``: seconds, monotonic.
    """

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._clock = what, max(1, total), clock
        self._bar = comfy.utils.ProgressBar(self._total)
        self._begun = self._next = clock()
        self._next += FIRST_ESTIMATE
        self._first: tuple[float, int] | None = None
        self._was_long = False

    def update(self, done: int, total: int | None = None, preview: tuple[str, Image.Image, int | None] | None = None) -> None:
        """Note that ``done`` of ``total`` steps are done. Raises the host's exception if the user interrupts."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._total = max(1, total or self._total)
        self._bar.update_absolute(done, self._total, preview)
        now = self._clock()
        if self._first is None or done < self._first[1]:
            self._first = now, done  # the first step also loads, and a stage may resume
            return
        if done >= self._total:
            self._finish(now)
        elif now >= self._next and done > self._first[1]:
            begun, first = self._first
            left = (now - begun) / (done - first) * (self._total - done)
            log.info("%s: step %s of %s, about %s left.", self._what, f"{done:,}", f"{self._total:,}", duration(left))
            self._next, self._was_long = now + NEXT_ESTIMATE, True

    def _finish(self, now: float) -> None:
        if self._was_long:
            log.info("%s: done in %s.", self._what, duration(now - self._begun))
        self._was_long = False


def duration(seconds: float) -> str:
    """Write a duration as a reader says it: "40 s", "6 min", "2 h 10 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def host_progress(what: str) -> Progress:
    """Return a function that reports every step of a training.

    It raises the host's exception if the user interrupts.
    """
    stage = WorkStage(what, 1)

    def report(step: int, total: int, figures: dict[str, float]) -> None:
        stage.update(step, total)

    return report


def training_device() -> torch.device:
    """Return the host's device if torch can draw random numbers on it, else the CPU."""
    device = comfy.model_management.get_torch_device()
    return device if device.type in ("cpu", "cuda", "mps", "xpu") else torch.device("cpu")
