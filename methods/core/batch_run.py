"""Runs of a batch that follows a target: readings of its images, quotas, and the class that each image is assigned.

What is done to h then is a subclass's affair: moves in distribution guidance, features of an autoencoder in steering.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.sites import pool
from .assignment import least_change_assignment
from .cells_by_index import cells_by_index
from .rows import Rows, read_rows
from .run import Call, Run, plain_level
from .targets import TargetDistribution

log = logging.getLogger("equipoise")

COND, COND_AND_UNCOND = "cond", "cond+uncond"
ROW_CHOICES = (COND, COND_AND_UNCOND)
ASSIGN = AUTO, READING, SEEDED = ("auto", "reading", "seeded")


@dataclass(frozen=True)
class BatchSettings:
    """Hold what the user chose for a batch."""

    target: TargetDistribution
    """Shares that the batch is to follow."""
    strength: float = 1.0
    """Factor of the edit; 0 is off."""
    seed: int | None = 0
    """Seed for rounding, and for seeded assignment; None for the sampler's."""
    rows: str = COND
    """Rows that are edited: "cond" for those of the positive, "cond+uncond" for both sides."""
    sigma_start: float = math.inf
    """Highest sigma of the window."""
    sigma_end: float = 0.0
    """Lowest sigma of the window."""
    assign: str = AUTO
    """How images are assigned: "reading", "seeded", or "auto" for what the file says."""
    cells: tuple[int, ...] | None = None
    """Cell of every image, fixed beforehand; None to decide in the run."""


@dataclass
class Readings:
    """Keep what was read in a run, one entry per call, for charts and logs."""

    log_snr: list[float] = field(default_factory=list)
    """Level of every reading."""
    shares: list[dict[str, list[float]]] = field(default_factory=list)
    """Mean class probabilities of the batch, by attribute."""


class ClassEdit(Protocol):
    """Describe one attribute's edit as a file holds it: a move or a profile."""

    site: str
    assign: str

    @property
    def window(self) -> tuple[float, float]:
        """Return the lowest and the highest log-SNR at which the edit acts."""

    def to(self, device: torch.device) -> ClassEdit:
        """Return the edit with its tensors on a device."""


class QuotaSource:
    """Decide the number of images per cell by the index that the images have in their batch.

    ``index``: index of every image, where a run samples a part of a batch; None for a whole batch.
    """

    def __init__(self, index: Sequence[int] | None = None) -> None:
        self._index = index

    def quotas(self, target: TargetDistribution, images: int, seed: int) -> list[int]:
        """Give the number of images per cell. A run asks once, when it decides."""
        return torch.bincount(self._cells(target, images, seed), minlength=len(target.shares)).tolist()

    def seeded(self, target: TargetDistribution, counts: Sequence[int], seed: int) -> Tensor:
        """Give every image a cell without regard to readings, int64 [N], with the counts that :meth:`quotas` gave."""
        return self._cells(target, sum(counts), seed)

    def _cells(self, target: TargetDistribution, images: int, seed: int) -> Tensor:
        is_whole = self._index is None or list(self._index) == list(range(images))
        index = range(images) if self._index is None else self._index
        return cells_by_index(target.shares, target.sizes, index, seed, images if is_whole else None)

    def finish(self, cells: Tensor | Sequence[int] | None, target: TargetDistribution | None = None) -> None:
        """Count the cells of images whose sampling ended well."""

    def release(self) -> None:
        """Give back quotas that were asked for and not finished."""


class WaitsForOthers(Exception):
    """Stop a pass that has read its images until the others have too."""


class BatchPlan:
    """Hold the assignment of a batch that is sampled in several passes.

    Every pass has a run of its own.
    ``images`` is the size of the batch. ``cells``, int64 [images], and ``counts`` hold what was decided; they are None until then.
    """

    def __init__(self, images: int, cells: Sequence[int] | None = None) -> None:
        self.images = images
        self.cells = None if cells is None else torch.tensor(list(cells))
        self.counts: list[int] | None = None
        self._read: dict[int, dict[str, Tensor]] = {}

    def add(self, image_index: Sequence[int], read: Mapping[str, Tensor]) -> bool:
        """Keep the readings [N, K] of some images, by attribute.

        Return whether all images were read.
        """
        for i, image in enumerate(image_index):
            self._read[image] = {a: p[i].detach().clone() for a, p in read.items()}
        return self.all_read

    @property
    def all_read(self) -> bool:
        """Whether all images were read, so that the assignment can be made."""
        return len(self._read) == self.images

    def readings(self) -> dict[str, Tensor]:
        """Return all readings in the order of the images, and drop them.

        Attribute -> [images, K].
        """
        in_order = [self._read[image] for image in range(self.images)]
        self._read = {}
        return {a: torch.stack([read[a] for read in in_order]) for a in in_order[0]}


class BatchRun(Run):
    """Read the images of a batch, ask for quotas, and assign every image a cell.

    ``cells``, int64 [N] on the CPU, and ``counts``, images per cell, are None until the run has decided.
    """

    what = "the batch run"
    decides = True
    """Whether the run assigns classes at all."""
    takes_gradient = False
    """Whether gradients go through the predictor, which then needs weights that were not made in inference mode."""

    def __init__(
        self,
        predictor: AttributePredictor | None,
        read_at: str,
        settings: BatchSettings,
        target: TargetDistribution,
        edits: Mapping[str, ClassEdit],
    ) -> None:
        known = () if predictor is None else predictor.attributes
        self.unread = tuple(a for a in target.attributes if a not in known)
        """Attributes of the target that no predictor reads. If there is one, images are assigned at random from the seed."""
        self.reads = len(self.unread) < len(target.attributes)
        """Whether any attribute of the target is read."""
        super().__init__([*([read_at] if self.reads else []), *(edit.site for edit in edits.values())])
        self.settings, self.target, self.read_at = settings, target, read_at
        self._source_predictor, self._edits = predictor, dict(edits)
        self.cells: Tensor | None = None
        self.counts: list[int] | None = None
        self.batch_plan: BatchPlan | None = None
        """The assignment of the larger batch, where this run samples a part of one."""
        self.image_index: list[int] | None = None
        """Images of the larger batch that this run samples; None where it samples all of them."""
        self.quota_source = QuotaSource()
        """Decides the number of images per cell; set where a ledger does, or where the run samples a part of a batch."""
        self.seed = settings.seed or 0
        """Seed for rounding; set where it is the sampler's."""
        self.known_cells: Sequence[int] | None = None
        """Cell of every image where an earlier run assigned them; they are kept."""
        self.noise: tuple[int, Sequence[int]] | None = None
        """Seed of the noise, and the index of every image in it; None where they are not known."""
        self.keeps_reading = False
        """Whether an image keeps the class that is read, if the target has it: it began from a picture of unknown class."""
        self.readings = Readings()
        self._device: torch.device | None = None
        self._predictor: AttributePredictor | None = None
        self._on_device: dict[str, Any] = {}
        self._read: dict[str, Tensor] = {}
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._warned = False

    # -- for subclasses ----------------------------------------------------------------------------------------------------------------

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """Take h [R, C, H, W] and return the h to continue with.

        :meth:`assign` gives the images their classes.
        """
        raise NotImplementedError

    # -- called from outside -----------------------------------------------------------------------------------------------------------

    def edit(self, site: str, h: Tensor, call: Call) -> Tensor:
        """Read h at the predictor's site; edit it within the window."""
        s = self.settings
        if self.exempt or s.strength == 0 or not s.sigma_end <= call.sigma <= s.sigma_start:
            return h
        rows = read_rows(h.shape[0], call.options, call.roles, self.images)
        if rows is None:
            if not self._warned:
                n = h.shape[0]
                log.warning("%s did not edit %d rows: they are not a multiple of the batch (another patch regroups them).", self.what, n)
                self._warned = True
            return h
        if s.rows == COND and not rows.conditional.any():
            return h
        self._prepare(h.device)
        if site == self.read_at and self.reads and rows.conditional.any():
            self._take_reading(h, rows, call.level)
        return self.step(site, h, rows, call.level)

    def summary(self: BatchRun) -> BatchRun:
        """Return a copy with cells, counts and readings, without features and weights."""
        summary = copy.copy(self)
        summary._drop()
        return summary

    def release(self) -> None:
        """Drop the tensors and networks; the run ends here."""
        self._drop()

    def _drop(self) -> None:
        self.quota_source, self.level_of = QuotaSource(), plain_level
        self._device, self._predictor, self._source_predictor, self._edits, self._on_device, self._read = None, None, None, {}, {}, {}
        self._seen = torch.zeros(0, dtype=torch.bool)

    # -- readings ---------------------------------------------------------------------------------------------------------------------

    def _prepare(self, device: torch.device) -> None:
        """Bring predictor, edits and readings to a device.

        A predictor that is there already is used as it is. One that a gradient goes through is always copied, outside inference mode.
        """
        if self._device == device:
            return
        graph = torch.is_grad_enabled() or self.takes_gradient
        with torch.inference_mode(False), torch.no_grad():
            p = self._source_predictor
            if self.reads and not graph and p.knots.device == device and not p.training:
                self._predictor = p
            elif self.reads:
                self._predictor = p.copied(device)
            self._on_device = {a: edit.to(device) for a, edit in self._edits.items()}
            self._read = {a: p.to(device) for a, p in self._read.items()}
        self._device = device

    def _take_reading(self, h: Tensor, rows: Rows, level: float) -> None:
        """Read class probabilities of every image, averaged over its conditional rows (several positives, or tiles)."""
        chosen = rows.conditional.nonzero().flatten()
        pooled = pool(h[chosen.to(h.device)])
        logits = self._predictor(pooled, torch.full((len(chosen),), level, device=h.device))
        image = rows.image[chosen].to(h.device)
        count = torch.zeros(rows.images, device=h.device).index_add_(0, image, torch.ones_like(image, dtype=torch.float32))
        if len(self._seen) != rows.images:
            self._seen, self._read = torch.zeros(rows.images, dtype=torch.bool), {}
        for attribute in (a for a in self.target.attributes if a in logits):
            p = logits[attribute].softmax(-1)
            total = p.new_zeros(rows.images, p.shape[1]).index_add_(0, image, p)
            # Features of a broken model may be NaN. Such an image counts as unread and is assigned like any other.
            read = torch.nan_to_num(total / count[:, None], nan=1 / p.shape[1])
            earlier = self._read.get(attribute)
            self._read[attribute] = read if earlier is None else torch.where(count[:, None] > 0, read, earlier)
        self._seen[rows.image[chosen]] = True
        self.readings.log_snr.append(level)
        self.readings.shares.append({a: p.mean(0).tolist() for a, p in self._read.items()})

    def reading_of(self, attribute: str, image: Tensor) -> Tensor | None:
        """Return the latest reading of every row's image, [R, K]; None if nothing was read."""
        read = self._read.get(attribute)
        return None if read is None else read[image]

    # -- assignment -------------------------------------------------------------------------------------------------------------------

    def assign(self, rows: Rows, level: float, at_once: bool = False) -> bool:
        """Assign the images to cells, once. Return False while it is too early.

        ``at_once``: do not wait for the window of an edit to open.
        """
        images = rows.images
        if self.cells is not None:
            return True
        s = self.settings
        fixed = s.cells if self.known_cells is None else self.known_cells
        if fixed is not None:
            if len(fixed) != images:
                raise ValueError(f"{len(fixed)} images were assigned a class beforehand, and the batch has {images}.")
            self.cells = torch.tensor(list(fixed))
            return True
        seeded = self._wants_seeded()
        if not at_once and not seeded and not any(active(edit, level) for edit in self._on_device.values()):
            return False
        if not seeded and not (self._read and rows.conditional.any()):
            return False  # Short of memory, the host runs the negative's rows alone and first: nothing was read at this level yet.
        if not seeded and not self._seen.all():
            return False  # Context windows show the images in turn.
        if self.batch_plan is not None and len(self.image_index) == images:
            self._assign_with_others(self.batch_plan, seeded)
        else:
            self._decide(images, seeded, self._read)
        return True

    def _decide(self, images: int, seeded: bool, read: Mapping[str, Tensor]) -> None:
        """Ask for quotas, and assign ``images`` images by their readings or from the seed."""
        if seeded:
            self.counts = self.quota_source.quotas(self.target, images, self.seed)
            self.cells = self.quota_source.seeded(self.target, self.counts, self.seed)
            return
        joint = torch.zeros(images, 1, device=next(iter(read.values())).device)
        for attribute in self.target.attributes:
            log_p = read[attribute].clamp(min=1e-6).log()
            joint = (joint[:, :, None] + log_p[:, None, :]).flatten(1)
        if self.keeps_reading:
            possible = torch.tensor(self.target.shares, device=joint.device) > 0
            self.cells = joint.masked_fill(~possible, -torch.inf).argmax(1).cpu()
            self.counts = torch.bincount(self.cells, minlength=len(possible)).tolist()
            return
        self.counts = self.quota_source.quotas(self.target, images, self.seed)
        self.cells = least_change_assignment(joint, self.counts)

    def _assign_with_others(self, batch_plan: BatchPlan, seeded: bool) -> None:
        """Take this run's part of the batch's assignment.

        Raises WaitsForOthers while other passes have images to read.
        """
        if batch_plan.cells is None:
            if not seeded and not batch_plan.add(self.image_index, self._read):
                raise WaitsForOthers
            self._decide(batch_plan.images, seeded, {} if seeded else batch_plan.readings())
            batch_plan.cells, batch_plan.counts = self.cells, self.counts
        self.counts, self.cells = batch_plan.counts, batch_plan.cells[self.image_index]

    @property
    def waits(self) -> bool:
        """Whether sampling must stop at the reading because other passes were not read yet."""
        plan = self.batch_plan
        if not self.decides or self.exempt or plan is None:
            return False
        return plan.cells is None and not plan.all_read and not self._wants_seeded()

    def _wants_seeded(self) -> bool:
        if self.unread:
            return True
        if self.settings.assign in (SEEDED, READING):
            return self.settings.assign == SEEDED
        return any(edit.assign == SEEDED for edit in self._edits.values())

    def edited(self, rows: Rows) -> Tensor:
        """Return which rows may be edited, bool [R]."""
        return rows.conditional if self.settings.rows == COND else ~rows.exempt

    def classes(self, device: torch.device) -> dict[str, Tensor]:
        """Return the assigned class of every image by attribute, int64 [N]."""
        per_cell = [self.target.cell_classes(c) for c in range(len(self.target.shares))]
        return {a: torch.tensor([per_cell[c][a] for c in self.cells.tolist()], device=device) for a in self.target.attributes}


def active(edit: ClassEdit, level: float) -> bool:
    """Check whether a level lies in the window of an edit."""
    return edit.window[0] < level < edit.window[1]
