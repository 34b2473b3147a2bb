"""Runs that sample a part of a batch, or images that were sampled before: one decision, however the batch is cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ....methods.core.batch_run import BatchRun, QuotaSource
from ....methods.core.known_cells import KnownCells
from ..observer import Observer, Start
from .image_index import index_of_noise, list_position
from .shared_batch import shared_batch

log = logging.getLogger("equipoise")


class BatchParts(Observer):
    """Give a run the part of its images in the quotas of their batch, and images of earlier runs their cells.

    It serves all runs of one patch, and remembers their images as :class:`KnownCells` does. A second pass that begins with pictures of
    these images keeps their cells. A single picture that is not known keeps the class that is read. Otherwise the index of an image in its
    batch decides, which follows from its noise. ``decides``: False where a ledger decides the classes; then only the seed is set.
    """

    def __init__(self, decides: bool = True) -> None:
        self._decides = decides
        self._known = KnownCells()
        self._first_seed: tuple[str, str, int | None] | None = None

    def started(self, run: BatchRun, start: Start) -> None:
        """Set seed, part and known cells of the run."""
        if run.settings.seed is None:
            run.seed = start.seed or 0
        if not self._decides:
            return
        batch = shared_batch(start.options)
        index = self._index(start, run.images or len(start.noise)) if batch is None else batch.index
        run.quota_source = QuotaSource(index)
        if run.settings.cells is not None or batch is not None:
            return
        if start.from_picture:
            run.known_cells = self._known.of_pictures(start.latent)
            run.keeps_reading = run.known_cells is None and run.images == 1
        elif index is not None and list(index) != list(range(len(index))) and start.seed is not None:
            run.known_cells = self._known.of_noise(start.seed, index)
        if start.seed is not None:
            run.noise = start.seed, range(run.images) if index is None else index

    def ended(self, run: BatchRun, samples: Tensor) -> None:
        """Remember the images, and write to ComfyUI's log what they were assigned."""
        if run.cells is None or run.settings.cells is not None:
            return
        cells = run.cells.tolist()
        if len(cells) == len(samples) and not samples.is_nested:
            self._known.add(cells, samples, run.noise)
        log.info("%s: %s.", run.what, assigned_line(run, cells))

    def _index(self, start: Start, images: int) -> Sequence[int] | None:
        """Find the index of every image in its batch; None for a whole batch."""
        index = index_of_noise(start.noise, start.seed)
        if index is not None and index != list(range(images)):
            return index
        first = images * self._list_position(start.seed)
        return range(first, first + images) if first else None

    def _list_position(self, seed: int | None) -> int:
        """Return the position in the list that the host maps over; 0 where its entries have seeds of their own."""
        context, position = get_executing_context(), list_position()
        if context is None:
            return 0
        if position == 0:
            self._first_seed = context.prompt_id, context.node_id, seed
        return position if self._first_seed == (context.prompt_id, context.node_id, seed) else 0


def assigned_line(run: BatchRun, cells: Sequence[int]) -> str:
    """Say in words which classes the images of a run got, and why."""
    counts = torch.bincount(torch.tensor(cells), minlength=len(run.target.names)).tolist()
    shares = ", ".join(f"{name}: {n}" for name, n in zip(run.target.names, counts, strict=True) if n)
    images = f"{len(cells)} image{'s' * (len(cells) > 1)}"
    if run.known_cells is not None:
        return f"{images} of an earlier run kept the class that they were assigned ({shares})"
    if run.keeps_reading:
        return f"{images} that began from a picture kept the class that was read ({shares})"
    return f"{images} assigned ({shares})"
