"""State shared by the passes of one batch: the images of the current pass, and the class assignment of the whole batch.

It travels in the transformer options, so that every patch of ours on a MODEL finds it, wherever the patch stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ....methods.core.batch_run import BatchPlan, BatchRun, QuotaSource
from ....methods.core.targets import TargetDistribution
from ..observer import Observer, Start
from ..types import Options

if TYPE_CHECKING:  # so that this module needs no host
    from ..hooks import Handle

BATCH_KEY = "equipoise_together"
"""In transformer options: the batch that is sampled in passes."""


class SharedBatch:
    """Share one class assignment between the passes of a batch of ``images``.

    ``decided``: cells of every patch of ours, in the order of the MODEL, from a cancelled run that had decided them. ``index``: index of
    every image, where the batch is itself a part of a larger one. A context manager:
    images count in a ledger when all were sampled, and their quotas are released when that fails.
    """

    def __init__(self, images: int, decided: Sequence[Sequence[int] | None] = (), index: Sequence[int] | None = None) -> None:
        self.images, self.image_index, self.index = images, list(range(images)), index
        self._decided = list(decided)
        self._plans: dict[Handle, BatchPlan] = {}
        self._runs: list[BatchRun] = []
        self._sources: dict[Handle, tuple[QuotaSource, TargetDistribution]] = {}

    def __enter__(self) -> SharedBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for handle, (source, target) in self._sources.items() if kind is None else ():
                source.finish(self._plans[handle].cells, target)
        finally:
            for source, _ in self._sources.values():
                source.release()
            self._sources = {}

    def __deepcopy__(self, memo: dict[int, object]) -> SharedBatch:
        # The host may copy options deeply. All copies mean one batch.
        return self

    def start(self, image_index: Sequence[int]) -> None:
        """Begin a pass that samples these images."""
        self.image_index, self._runs = list(image_index), []

    def join(self, handle: Handle, run: BatchRun) -> None:
        """Add a run to the pass, with the quotas of the whole batch."""
        if handle not in self._plans:
            number = len(self._plans)
            cells = self._decided[number] if number < len(self._decided) else None
            fits = cells is not None and len(cells) == self.images and all(0 <= c < len(run.target.shares) for c in cells)
            self._plans[handle] = BatchPlan(self.images, cells if fits else None)
        run.batch_plan, run.image_index = self._plans[handle], self.image_index
        self._runs.append(run)
        source, _ = self._sources.setdefault(handle, (run.quota_source, run.target))
        run.quota_source = _BatchQuotas(source)

    def finish(self) -> None:
        """End the pass and let go of its runs."""
        self._runs = []

    @property
    def waits(self) -> bool:
        """Whether a run of this pass must stop at its reading.

        It must while other passes were not read yet.
        """
        return any(run.waits for run in self._runs)

    @property
    def decided(self) -> list[list[int] | None]:
        """Cells of the whole batch by patch of ours, in the order of the MODEL."""
        return [None if plan.cells is None else plan.cells.tolist() for plan in self._plans.values()]


class _BatchQuotas(QuotaSource):
    """Pass on a run's request for quotas.

    The batch finishes and releases the source, since several runs share it.
    """

    def __init__(self, source: QuotaSource) -> None:
        super().__init__()
        self._source = source

    def quotas(self, target: TargetDistribution, images: int, seed: int) -> list[int]:
        """Ask the source of the batch."""
        return self._source.quotas(target, images, seed)

    def seeded(self, target: TargetDistribution, counts: Sequence[int], seed: int) -> Tensor:
        """Ask the source of the batch."""
        return self._source.seeded(target, counts, seed)

    def finish(self, cells: Tensor | Sequence[int] | None, target: TargetDistribution | None = None) -> None:
        """Do nothing: the images count when all passes were sampled."""


class SharedBatchObserver(Observer):
    """Let every run join the batch of which it samples a pass.

    It takes over the quota source of the observers before it.
    """

    def started(self, run: BatchRun, start: Start) -> None:
        """Join the batch, if there is one."""
        batch = shared_batch(start.options)
        if batch is not None:
            batch.join(start.handle, run)


def shared_batch(options: Options) -> SharedBatch | None:
    """Return the batch of which these transformer options sample a pass.

    None where a run is a batch of its own.
    """
    return options.get(BATCH_KEY)
