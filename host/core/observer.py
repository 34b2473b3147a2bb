"""Observers: objects that are told of the events of a run and do not edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...methods.core.run import AnyRun, Run
from .types import Options

if TYPE_CHECKING:  # so that this module needs no host
    from .hooks import Handle

SIGMAS_POSITION, CALLBACK_POSITION, SEED_POSITION = 2, 4, 6
"""Positions of sigmas, callback and seed among the arguments after the noise, in ComfyUI's ``outer_sample``."""


@dataclass(frozen=True)
class Start:
    """Describe a sampling when it starts."""

    handle: Handle
    """Handle of the patch whose run starts."""
    options: Options
    """Transformer options of the sampling, without the run."""
    noise: Tensor
    """Noise of the batch."""
    latent: Tensor | None
    """Latent that sampling begins with."""
    from_picture: bool
    """Whether sampling begins with a picture: a latent that is not empty, below the highest sigma."""
    seed: int | None
    """Seed of the sampler, where it has one."""


class Observer:
    """Watch the runs of a patch.

    One observer serves all runs of its patch, so it keeps no state of a run.
    """

    watches_steps = False
    """Whether :meth:`stepped` is to be called."""

    def started(self, run: Run, start: Start) -> None:
        """Note that a run was made and sampling is about to start."""

    def stepped(self, run: Run, step: int, steps: int) -> None:
        """Note that ``step`` of ``steps`` sampling steps are done."""

    def ended(self, run: Run, samples: Tensor) -> None:
        """Note that sampling ended well, with these latents."""

    def failed(self, run: Run) -> None:
        """Note that sampling, or an observer before this one, raised an exception."""


class WhenEnded(Observer):
    """Call a function with every run whose sampling ended well, before the run is released."""

    def __init__(self, function: Callable[[AnyRun], None]) -> None:
        self._function = function

    def ended(self, run: AnyRun, samples: Tensor) -> None:
        """Pass the run on."""
        self._function(run)


def start_of(
    handle: Handle, options: Options, noise: Tensor, sigma_max: float, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Start:
    """Describe a sampling from what ``outer_sample`` was called with: the noise, and what follows it."""
    latent = args[0] if args else kwargs.get("latent_image")
    sigmas = args[SIGMAS_POSITION] if len(args) > SIGMAS_POSITION else kwargs["sigmas"]
    seed = kwargs.get("seed", args[SEED_POSITION] if len(args) > SEED_POSITION else None)
    is_begun = len(sigmas) > 0 and float(sigmas[0]) < sigma_max * (1 - 1e-5)
    from_picture = is_begun and latent is not None and bool(torch.count_nonzero(latent))
    return Start(handle, options, noise, latent, from_picture, seed)


def report_steps(
    observers: Sequence[Observer], run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Wrap the callback among sampling arguments so that observers are told of steps.

    ``args`` and ``kwargs`` are the arguments after the noise. The original callback is called first.
    """
    watching = [observer for observer in observers if observer.watches_steps]
    if not watching:
        return args, kwargs
    original = kwargs.get("callback", args[CALLBACK_POSITION] if len(args) > CALLBACK_POSITION else None)

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        if original is not None:
            original(step, x0, x, total)
        for observer in watching:
            observer.stepped(run, step + 1, total)

    if len(args) > CALLBACK_POSITION:
        return (*args[:CALLBACK_POSITION], callback, *args[CALLBACK_POSITION + 1 :]), kwargs
    return args, {**kwargs, "callback": callback}
