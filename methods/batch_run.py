"""One sampling run of a batch that is to follow a target: what its images are read as, who becomes what, and when.

What is done to h then (moves of distribution guidance, features of an autoencoder) is a subclass's affair. The state of a run lives in
these objects; one is made when sampling starts and dropped when it ends.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..models.adp import AttributePredictor, log_snr, pool
from .allocation import least_change_assignment, seeded_assignment
from .joint_quotas import joint_quotas
from .rows import Rows, read_rows
from .targets import TargetDistribution

log = logging.getLogger("equipoise")

COND, COND_AND_UNCOND = "cond", "cond+uncond"
ROW_CHOICES = (COND, COND_AND_UNCOND)
ASSIGN = AUTO, READING, SEEDED = ("auto", "reading", "seeded")
Quotas = Callable[[TargetDistribution, int, int], list[int]]
"""quotas(target, images, seed) -> whole numbers of images per cell; asked once, when a run decides."""


def own_quotas(target: TargetDistribution, images: int, seed: int) -> list[int]:
    """Quotas of a run that knows of no other run."""
    return joint_quotas(target.shares, target.sizes, images, seed)


@dataclass(frozen=True)
class BatchSettings:
    """What the user chose. ``sigma_start`` and ``sigma_end`` bound the window (sigma_end <= sigma <= sigma_start); ``cells`` fixes the
    cell of every image beforehand (None: decided in the run)."""

    target: TargetDistribution
    strength: float = 1.0
    seed: int = 0
    rows: str = COND
    sigma_start: float = math.inf
    sigma_end: float = 0.0
    assign: str = AUTO
    cells: tuple[int, ...] | None = None


@dataclass
class Readings:
    """What was read in a run, for charts and logs: one entry per call."""

    log_snr: list[float] = field(default_factory=list)
    shares: list[dict[str, list[float]]] = field(default_factory=list)


class Way(Protocol):
    """How images of one attribute are moved, as a file holds it (a Move or a Profile): where, over which log-SNR, and how images are
    assigned."""

    site: str
    assign: str

    @property
    def window(self) -> tuple[float, float]: ...

    def to(self, device: torch.device) -> Way: ...


class WaitsForOthers(Exception):
    """Raised inside sampling where a pass has read its images and the classes can be given only when all passes have."""


class Whole:
    """The one decision about a batch that is drawn in several passes, each of them a run of its own.

    ``images``: how many there are; ``cells`` int64 [images] and ``counts``: what was decided, None until then.
    """

    def __init__(self, images: int, cells: Sequence[int] | None = None) -> None:
        self.images = images
        self.cells = None if cells is None else torch.tensor(list(cells))
        self.counts: list[int] | None = None
        self._read: dict[int, dict[str, Tensor]] = {}

    def add(self, rows: Sequence[int], read: Mapping[str, Tensor]) -> bool:
        """Keep the reading [N, K] per attribute of the images ``rows``; whether all images' readings are there now."""
        for place, row in enumerate(rows):
            self._read[row] = {a: p[place].detach().clone() for a, p in read.items()}
        return self.all_read

    @property
    def all_read(self) -> bool:
        """Whether the decision can be made."""
        return len(self._read) == self.images

    def readings(self) -> dict[str, Tensor]:
        """All images' readings in their order: attribute -> [images, K]. They are kept no longer."""
        whole = [self._read[row] for row in range(self.images)]
        self._read = {}
        return {a: torch.stack([read[a] for read in whole]) for a in whole[0]}


class BatchRun:
    """Readings, quotas, and the cell that every image was assigned to (``cells``, int64 [N] on the CPU, or None).

    ``unread``: attributes of the target that no predictor reads; if there is one, images are assigned at random from the seed.
    ``exempt``: set where all positives of the run are exempt, so that it is left alone. ``images``: set where it is known how many the run
    has (a context window's calls hold fewer of them). ``on_cpu``: set where the device lacks an operation. ``whole``, ``rows``: set where
    this run draws the images ``rows`` of a larger batch, whose quotas are those of the whole. ``ask_quotas``: set where something else than
    this batch decides how many images each cell gets (a ledger).
    """

    what = "the batch run"
    decides = True
    """Whether images are assigned classes at all."""
    takes_gradient = False
    """Whether gradients go through the predictor, which needs weights that were not made in inference mode."""

    def __init__(
        self,
        predictor: AttributePredictor | None,
        read_at: str,
        settings: BatchSettings,
        target: TargetDistribution,
        ways: Mapping[str, Way],
    ) -> None:
        self.settings, self.target, self.read_at = settings, target, read_at
        self._reader, self._ways = predictor, dict(ways)
        known = () if predictor is None else predictor.attributes
        self.unread = tuple(a for a in target.attributes if a not in known)
        self.cells: Tensor | None = None
        self.counts: list[int] | None = None
        self.exempt = False
        self.images: int | None = None
        self.on_cpu = False
        self.whole: Whole | None = None
        self.rows: list[int] = []
        self.ask_quotas: Quotas = own_quotas
        self.readings = Readings()
        self._device: torch.device | None = None
        self._predictor: AttributePredictor | None = None
        self._here: dict[str, Any] = {}
        self._read: dict[str, Tensor] = {}
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._warned = False

    # -- for subclasses ----------------------------------------------------------------------------------------------------------------

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """h [R, C, H, W] -> h to go on with; :meth:`assign` says who becomes what."""
        raise NotImplementedError

    # -- called from outside -----------------------------------------------------------------------------------------------------------

    @property
    def sites(self) -> set[str]:
        """Where this run has to be called: where it reads, and the sites of its ways."""
        return {*([self.read_at] if self.reads else []), *(way.site for way in self._ways.values())}

    @property
    def reads(self) -> bool:
        """Whether anything of the target is read."""
        return len(self.unread) < len(self.target.attributes)

    def edit(self, site: str, h: Tensor, options: dict[str, Any], roles: dict[Any, str] | None = None) -> Tensor:
        """h [R, C, H, W] as it arrives at a site -> h to go on with (a new tensor where it is edited, else the same object)."""
        s = self.settings
        sigma = float(options["sigmas"].max())
        if self.exempt or s.strength == 0 or not s.sigma_end <= sigma <= s.sigma_start:
            return h
        rows = read_rows(h.shape[0], options, roles, self.images)
        if rows is None:
            if not self._warned:
                n = h.shape[0]
                log.warning("%s left %d rows alone: they are no multiple of the batch (another patch regroups them).", self.what, n)
                self._warned = True
            return h
        if s.rows == COND and not rows.conditional.any():
            return h
        level = float(log_snr(sigma))
        self._prepare(h.device)
        if site == self.read_at and self.reads and rows.conditional.any():
            self._take_reading(h, rows, level)
        return self.step(site, h, rows, level)

    def summary(self) -> BatchRun:
        """What is worth keeping of a run when it ends: cells, counts and readings, no features and no weights."""
        kept = copy.copy(self)
        kept._drop()
        return kept

    def release(self) -> None:
        """Drop the tensors; the run ends here."""
        self._drop()

    def _drop(self) -> None:
        self.ask_quotas = own_quotas
        self._device, self._predictor, self._reader, self._ways, self._here, self._read = None, None, None, {}, {}, {}
        self._seen = torch.zeros(0, dtype=torch.bool)

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchRun:
        # The host may copy its options deeply; a run is one thing, with one state.
        return self

    # -- readings ---------------------------------------------------------------------------------------------------------------------

    def _prepare(self, device: torch.device) -> None:
        """Put the small tensors on the device. A predictor that is there already is used as it is; one that a gradient goes through is
        always copied, outside inference mode."""
        if self._device == device:
            return
        graph = torch.is_grad_enabled() or self.takes_gradient
        with torch.inference_mode(False), torch.no_grad():
            p = self._reader
            if self.reads and not graph and p.knots.device == device and not p.training:
                self._predictor = p
            elif self.reads:
                copied = AttributePredictor(p.attributes, p.channels, p.knots.clone().to(device), p.kind, p.hidden).to(device)
                copied.load_state_dict({k: v.clone().to(device) for k, v in p.state_dict().items()})
                self._predictor = copied.eval().requires_grad_(False)
            self._here = {a: way.to(device) for a, way in self._ways.items()}
            self._read = {a: p.to(device) for a, p in self._read.items()}
        self._device = device

    def _take_reading(self, h: Tensor, rows: Rows, level: float) -> None:
        """Class probabilities of every image, averaged over its conditional rows (several positives, or tiles)."""
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
            # Features of a broken model may be no numbers; such an image is taken as unread, and assigned like any other.
            read = torch.nan_to_num(total / count[:, None], nan=1 / p.shape[1])
            earlier = self._read.get(attribute)
            self._read[attribute] = read if earlier is None else torch.where(count[:, None] > 0, read, earlier)
        self._seen[rows.image[chosen]] = True
        self.readings.log_snr.append(level)
        self.readings.shares.append({a: p.mean(0).tolist() for a, p in self._read.items()})

    def reading_of(self, attribute: str, image: Tensor) -> Tensor | None:
        """The latest reading of every row's image, [R, K]; None where nothing was read."""
        read = self._read.get(attribute)
        return None if read is None else read[image]

    # -- who becomes what -------------------------------------------------------------------------------------------------------------

    def assign(self, rows: Rows, level: float, at_once: bool = False) -> bool:
        """Decide who becomes what, once; False while it is too early. ``at_once``: without waiting for a window to open."""
        images = rows.images
        if self.cells is not None:
            return True
        s = self.settings
        if s.cells is not None:
            if len(s.cells) != images:
                raise ValueError(f"{len(s.cells)} images were assigned a class beforehand, and the batch has {images}.")
            self.cells = torch.tensor(s.cells)
            return True
        seeded = self._wants_seeded()
        if not at_once and not seeded and not any(active(way, level) for way in self._here.values()):
            return False
        if not seeded and not (self._read and rows.conditional.any()):
            return False  # short of memory, the host runs the negative's rows on their own and first: nothing was read at this level yet
        if not seeded and not self._seen.all():
            return False  # context windows show the images in turn
        if self.whole is not None and len(self.rows) == images:
            self._assign_with_others(self.whole, seeded)
        else:
            self._decide(images, seeded, self._read)
        return True

    def _decide(self, images: int, seeded: bool, read: Mapping[str, Tensor]) -> None:
        """Quotas for ``images``, and who becomes what by what was read of them, or from the seed."""
        s = self.settings
        self.counts = self.ask_quotas(self.target, images, s.seed)
        if seeded:
            self.cells = seeded_assignment(self.counts, s.seed)
            return
        joint = torch.zeros(images, 1, device=next(iter(read.values())).device)
        for attribute in self.target.attributes:
            log_p = read[attribute].clamp(min=1e-6).log()
            joint = (joint[:, :, None] + log_p[:, None, :]).flatten(1)
        self.cells = least_change_assignment(joint, self.counts)

    def _assign_with_others(self, whole: Whole, seeded: bool) -> None:
        """This run's part of the decision about the whole batch. WaitsForOthers where other passes have to read their images first."""
        if whole.cells is None:
            if not seeded and not whole.add(self.rows, self._read):
                raise WaitsForOthers
            self._decide(whole.images, seeded, {} if seeded else whole.readings())
            whole.cells, whole.counts = self.cells, self.counts
        self.counts, self.cells = whole.counts, whole.cells[self.rows]

    @property
    def waits(self) -> bool:
        """Whether this run can only be drawn to its end when all passes were read."""
        w = self.whole
        return self.decides and not self.exempt and w is not None and w.cells is None and not w.all_read and not self._wants_seeded()

    @property
    def places(self) -> list[int] | None:
        """Which images of the batch these are, where they are part of a larger one."""
        return None if self.whole is None else self.rows

    def _wants_seeded(self) -> bool:
        if self.unread:
            return True
        if self.settings.assign in (SEEDED, READING):
            return self.settings.assign == SEEDED
        return any(way.assign == SEEDED for way in self._ways.values())

    def edited(self, rows: Rows) -> Tensor:
        """bool [R]: the rows that may be changed."""
        return rows.conditional if self.settings.rows == COND else ~rows.exempt

    def classes(self, device: torch.device) -> dict[str, Tensor]:
        """Assigned class per attribute: int64 [N]."""
        per_cell = [self.target.cell_classes(c) for c in range(len(self.target.shares))]
        return {a: torch.tensor([per_cell[c][a] for c in self.cells.tolist()], device=device) for a in self.target.attributes}


def active(way: Way, level: float) -> bool:
    """Whether a way acts at a log-SNR."""
    return way.window[0] < level < way.window[1]
