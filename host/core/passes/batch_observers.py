"""The observers of a run that follows a target."""

from __future__ import annotations

from collections.abc import Callable

from ....methods.core.run import AnyRun
from ..live import live_bar
from ..observer import Observer, WhenEnded
from .batch_parts import BatchParts
from .shared_batch import SharedBatchObserver


def batch_observers(quotas: Observer | None = None, on_finish: Callable[[AnyRun], None] | None = None) -> list[Observer]:
    """List the observers that a :class:`BatchRun` needs.

    They are parts of batches, shared passes, and the live bar of the node that ComfyUI executes now.
    ``quotas``: sets a quota source, as a ledger does; shared passes take it over. ``on_finish`` gets every run that ended well.
    """
    bar = live_bar()
    observers = [BatchParts(quotas is None), quotas, SharedBatchObserver(), bar, None if on_finish is None else WhenEnded(on_finish)]
    return [observer for observer in observers if observer is not None]
