"""The part of a sampling run in a ledger: quotas by its counts, and images counted in it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence

import torch
from torch import Tensor

from ...methods.core.assignment import seeded_assignment
from ...methods.core.batch_run import BatchRun, QuotaSource
from ...methods.core.targets import TargetDistribution
from ...methods.ledger.ledger import Reservation, RunKey
from ..core.observer import Observer, Start
from .ledgers import LedgerHandle, running_node

log = logging.getLogger("equipoise")


class LedgerQuotas(QuotaSource):
    """Reserve quotas in a ledger for one run, and count its images.

    They count when sampling ended well.
    ``again``: sampling begins with images and not with an empty latent, so that another node of the prompt may have made them.
    """

    def __init__(self, handle: LedgerHandle, seed: int = 0, again: bool = False) -> None:
        super().__init__()
        self._ledger, self._seed, self._again = handle.open(), seed, again
        self.key = running_node() or RunKey(f"script-{uuid.uuid4().hex}", "")
        self._reserved: tuple[TargetDistribution, Reservation] | None = None

    def quotas(self, target: TargetDistribution, images: int, seed: int) -> list[int]:
        """Give images per cell by the ledger's counts; they are reserved until :meth:`finish` or :meth:`release`."""
        reservation = self._ledger.reserve(target, self.key, images, seed, self._seed, self._again)
        self._reserved, self.key = (target, reservation), reservation.key
        return reservation.counts

    def seeded(self, target: TargetDistribution, counts: Sequence[int], seed: int) -> Tensor:
        """Assign the cells in a random order."""
        return seeded_assignment(counts, seed)

    def finish(self, cells: Tensor | Sequence[int] | None, target: TargetDistribution | None = None) -> None:
        """Count image i as ``cells[i]``.

        ``target``: needed where cells were decided by a run that was cancelled, so that no quotas were asked for.
        """
        if self._reserved is None and target is not None and cells is not None:
            self._reserved = target, Reservation(self.key, 0, [])
        if self._reserved is None or cells is None:
            return
        (target, reservation), self._reserved = self._reserved, None
        self._ledger.confirm(target, reservation, [int(c) for c in cells], self._seed)

    def release(self) -> None:
        """Drop what was reserved and not finished.

        Never raises, because another error may be on its way.
        """
        if self._reserved is None:
            return
        (target, reservation), self._reserved = self._reserved, None
        try:
            self._ledger.release(target, reservation)
        except ValueError as error:
            log.warning("Quotas that a failed run reserved stay reserved until this ComfyUI ends: %s", error)


class LedgerObserver(Observer):
    """Let every run take its quotas from a ledger, and count its images there."""

    def __init__(self, ledger: LedgerHandle) -> None:
        self._ledger = ledger

    def started(self, run: BatchRun, start: Start) -> None:
        """Make the ledger the run's source of quotas."""
        again = start.latent is not None and bool(torch.count_nonzero(start.latent))
        run.quota_source = LedgerQuotas(self._ledger, start.seed or 0, again)

    def ended(self, run: BatchRun, samples: Tensor) -> None:
        """Count the images."""
        run.quota_source.finish(run.cells)
        run.quota_source.release()

    def failed(self, run: BatchRun) -> None:
        """Release the quotas."""
        run.quota_source.release()


def ledger_observer(ledger: LedgerHandle | None) -> LedgerObserver | None:
    """Make the observer of a ledger, where there is one."""
    return None if ledger is None else LedgerObserver(ledger)
