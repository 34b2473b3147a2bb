"""What the runs have in common that draw one batch in several passes: whose pass it is, and the decisions about the whole.

It travels in the transformer options, so that every patch of ours on a MODEL finds it, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....methods.core.batch_run import BatchRun, Whole
from ....methods.core.targets import TargetDistribution
from ...ledger.ledgers import LedgerRun

KEY = "equipoise_together"


class Together:
    """A batch of ``images``, of which ``rows`` are being drawn.

    ``decided``: the cells of every patch of ours in the order of the MODEL, where a run that was cut off had decided them. A context
    manager: images count in a ledger when all were drawn, and what is reserved for them is released when that fails.
    """

    def __init__(self, images: int, decided: Sequence[Sequence[int] | None] = ()) -> None:
        self.images, self.rows = images, list(range(images))
        self._decided = list(decided)
        self._wholes: dict[Any, Whole] = {}
        self._runs: list[BatchRun] = []
        self._counted: dict[Any, tuple[LedgerRun, TargetDistribution]] = {}

    def __enter__(self) -> Together:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            for handle, (counted, target) in self._counted.items() if kind is None else ():
                counted.finish(self._wholes[handle].cells, target)
        finally:
            for counted, _ in self._counted.values():
                counted.release()
            self._counted = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Together:
        # The host may copy options deeply; all copies speak of one batch.
        return self

    def start(self, rows: Sequence[int]) -> None:
        """The next pass draws these images."""
        self.rows, self._runs = list(rows), []

    def join(self, handle: Any, run: BatchRun, counted: LedgerRun | None = None) -> None:
        """A run of the pass: its quotas are those of the whole from here on. ``counted``: its part in a ledger, kept of the first pass."""
        if handle not in self._wholes:
            place = len(self._wholes)
            cells = self._decided[place] if place < len(self._decided) else None
            fits = cells is not None and len(cells) == self.images and all(0 <= c < len(run.target.shares) for c in cells)
            self._wholes[handle] = Whole(self.images, cells if fits else None)
        run.whole, run.rows = self._wholes[handle], self.rows
        self._runs.append(run)
        if counted is not None:
            counted = self._counted.setdefault(handle, (counted, run.target))[0]
            run.ask_quotas = counted.quotas

    def finish(self) -> None:
        """The pass is over; its runs are let go."""
        self._runs = []

    @property
    def waits(self) -> bool:
        """Whether a run of this pass cannot be drawn to its end before all passes were read."""
        return any(run.waits for run in self._runs)

    @property
    def decided(self) -> list[list[int] | None]:
        """The cells of the whole batch, of every patch of ours in the order of the MODEL."""
        return [None if w.cells is None else w.cells.tolist() for w in self._wholes.values()]


def together(options: Mapping[str, Any]) -> Together | None:
    """What transformer options say of the batch; None where a run is a batch of its own."""
    return options.get(KEY)
