"""Distribution guidance: what happens to h at one U-Net call.

The state of one sampling run lives in :class:`GuidanceRun`; it is made when sampling starts and dropped when it ends.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.adp import GRID, MIDDLE, AdpFile, AttributePredictor, Move, at_level, average, log_snr, pool
from .allocation import least_change_assignment, quotas, seeded_assignment
from .directions import CONTRAST, KINDS
from .losses import SOFT_LOSSES, soft_loss_gradient
from .rows import Rows, read_rows
from .targets import TargetDistribution

log = logging.getLogger("equipoise")

QUOTA = "quota"
MODES = (QUOTA, *SOFT_LOSSES)
COND, COND_AND_UNCOND = "cond", "cond+uncond"
ROW_CHOICES = (COND, COND_AND_UNCOND)
CALIBRATED, LEARNED, LEARNED_PROMPTS, GRADIENT = "calibrated", "learned", "learned-prompts", "adp-gradient"
FITTED = (LEARNED, LEARNED_PROMPTS)
"""Moves that were fitted through the decoder: their lengths come out of the fit, and calibration only multiplies them."""
DIRECTIONS = (CALIBRATED, *FITTED, *KINDS, CONTRAST, GRADIENT)
SOFT_TEMPERATURE = 8.0
"""Temperature of the soft batch mean in the paper's losses."""


@dataclass(frozen=True)
class GuidanceSettings:
    """What the user chose. ``sigma_start`` and ``sigma_end`` bound the window (sigma_end <= sigma <= sigma_start); ``cells`` fixes the
    cell of every image beforehand (None: decided in the run)."""

    target: TargetDistribution
    mode: str = QUOTA
    strength: float = 1.0
    seed: int = 0
    rows: str = COND
    direction: str = CALIBRATED
    sigma_start: float = math.inf
    sigma_end: float = 0.0
    assign: str = "auto"
    cells: tuple[int, ...] | None = None


@dataclass
class Readings:
    """What the ADP read in a run, for charts and logs: one entry per call."""

    log_snr: list[float] = field(default_factory=list)
    shares: list[dict[str, list[float]]] = field(default_factory=list)


class GuidanceRun:
    """State of one run: readings, quotas, and the cell that every image was assigned to (``cells``, int64 [N] on the CPU, or None).

    ``unread``: attributes of the target that the ADP does not read; if there is one, images are assigned at random from the seed.
    ``exempt``: set where all positives of the run are exempt, so that it is left alone. Raises ValueError, in a sentence, for a target that
    the ADP does not know, moves that it does not hold, and settings that go by a reading that it does not give.
    """

    def __init__(self, adp: AdpFile, settings: GuidanceSettings) -> None:
        self.adp, self.settings = adp, settings
        self.target = settings.target.reordered(adp.attributes)
        self.unread = tuple(a for a in self.target.attributes if a not in adp.read)
        moved = settings.mode == QUOTA and settings.direction != GRADIENT
        if self.unread and not moved:
            what = f"direction '{GRADIENT}'" if settings.mode == QUOTA else f"mode '{settings.mode}'"
            raise ValueError(
                f"this ADP does not read '{self.unread[0]}', which {what} goes by: choose mode '{QUOTA}' and a direction that the file "
                f"holds ({', '.join(adp.sources().get(self.unread[0], {})) or 'none'}), or add the attribute with Train ADP."
            )
        self._chosen = chosen_moves(adp, settings, self.target.attributes) if moved else {}
        self.cells: Tensor | None = None
        self.counts: list[int] | None = None
        self.exempt = False
        self.readings = Readings()
        self._device: torch.device | None = None
        self._predictor: AttributePredictor | None = None
        self._moves: dict[str, Move] = {}
        self._read: dict[str, Tensor] = {}
        self._warned = False

    @property
    def sites(self) -> set[str]:
        """Where this run has to be called: the middle block (readings), and the sites of the moves."""
        return {*([MIDDLE] if self._reads else []), *(move.site for move in self._chosen.values())}

    @property
    def _reads(self) -> bool:
        return len(self.unread) < len(self.target.attributes)

    def edit(self, site: str, h: Tensor, options: dict[str, Any], roles: dict[Any, str] | None = None) -> Tensor:
        """h [R, C, H, W] as it arrives at a site -> h to go on with (a new tensor where it is edited, else the same object)."""
        s = self.settings
        sigma = float(options["sigmas"].max())
        if self.exempt or s.strength == 0 or not s.sigma_end <= sigma <= s.sigma_start:
            return h
        rows = read_rows(h.shape[0], options, roles)
        if rows is None:
            if not self._warned:
                log.warning("distribution guidance left %d rows alone: they are no multiple of the batch (another patch regroups "
                "them).", h.shape[0])
                self._warned = True
            return h
        if s.rows == COND and not rows.conditional.any():
            return h
        level = float(log_snr(sigma))
        self._prepare(h.device)
        if site == MIDDLE and self._reads and rows.conditional.any():
            self._take_reading(h, rows, level)
        if s.mode != QUOTA:
            return self._soft_step(h, rows, level) if site == MIDDLE else h
        return self._quota_step(site, h, rows, level)

    def summary(self) -> GuidanceRun:
        """What is worth keeping of a run when it ends: cells, counts and readings, no features and no weights."""
        kept = GuidanceRun(self.adp, self.settings)
        kept.cells, kept.counts, kept.readings, kept.exempt = self.cells, self.counts, self.readings, self.exempt
        return kept

    def release(self) -> None:
        """Drop the tensors; the run ends here."""
        self._device, self._predictor, self._chosen, self._moves, self._read = None, None, {}, {}, {}

    def __deepcopy__(self, memo: dict[int, Any]) -> GuidanceRun:
        # The host may copy its options deeply; a run is one thing, with one state.
        return self

    # -- readings ---------------------------------------------------------------------------------------------------------------------

    def _prepare(self, device: torch.device) -> None:
        """Copies of the small tensors on the device, made outside inference mode so that a gradient can be taken."""
        if self._device == device:
            return
        with torch.inference_mode(False), torch.no_grad():
            p = self.adp.predictor
            if self._reads:
                copy = AttributePredictor(p.attributes, p.channels, p.knots.clone().to(device), p.kind, p.hidden).to(device)
                copy.load_state_dict({k: v.clone().to(device) for k, v in p.state_dict().items()})
                self._predictor = copy.eval().requires_grad_(False)
            self._moves = {a: move.to(device) for a, move in self._chosen.items()}
        self._device = device

    def _take_reading(self, h: Tensor, rows: Rows, level: float) -> None:
        """Class probabilities of every image, averaged over its conditional rows (several positives, or tiles)."""
        chosen = rows.conditional.nonzero().flatten()
        pooled = pool(h[chosen.to(h.device)])
        logits = self._predictor(pooled, torch.full((len(chosen),), level, device=h.device))
        image = rows.image[chosen].to(h.device)
        count = torch.zeros(rows.images, device=h.device).index_add_(0, image, torch.ones_like(image, dtype=torch.float32))
        for attribute in (a for a in self.target.attributes if a in logits):
            p = logits[attribute].softmax(-1)
            total = p.new_zeros(rows.images, p.shape[1]).index_add_(0, image, p)
            # Features of a broken model may be no numbers; such an image is taken as unread, and assigned like any other.
            self._read[attribute] = torch.nan_to_num(total / count[:, None], nan=1 / p.shape[1])
        self.readings.log_snr.append(level)
        self.readings.shares.append({a: p.mean(0).tolist() for a, p in self._read.items()})

    # -- quota ------------------------------------------------------------------------------------------------------------------------

    def _wants_seeded(self) -> bool:
        s = self.settings
        if self.unread:
            return True
        if s.assign in ("seeded", "reading"):
            return s.assign == "seeded"
        return any(m.assign == "seeded" for m in self._moves.values())

    def _active(self, level: float) -> dict[str, Move]:
        return {a: m for a, m in self._moves.items() if m.window[0] < level < m.window[1]}

    def _assign(self, rows: Rows, level: float) -> bool:
        """Decide who becomes what, once; False while it is too early."""
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
        if s.direction != GRADIENT and not seeded and not self._active(level):
            return False
        if not seeded and not rows.conditional.any():
            return False  # short of memory, the host runs the negative's rows on their own and first: nothing was read at this level yet
        self.counts = quotas(self.target.shares, images, s.seed)
        if seeded:
            self.cells = seeded_assignment(self.counts, s.seed)
            return True
        joint = torch.zeros(images, 1, device=next(iter(self._read.values())).device)
        for attribute in self.target.attributes:
            log_p = self._read[attribute].clamp(min=1e-6).log()
            joint = (joint[:, :, None] + log_p[:, None, :]).flatten(1)
        self.cells = least_change_assignment(joint, self.counts)
        return True

    def _quota_step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        if not self._assign(rows, level):
            return h
        chosen = self._edited(rows).to(h.device)
        image = rows.image.to(h.device)
        classes = self._classes(h.device)
        step = None
        for attribute in self.target.attributes:
            if self.settings.direction == GRADIENT:
                part = self._gradient_step(attribute, h, image, classes[attribute], level) if site == MIDDLE else None
            else:
                move = self._moves[attribute]
                active = move.site == site and move.window[0] < level < move.window[1]
                part = move_vector(move, classes[attribute][image], self._reading_of(attribute, image), level, h.shape) if active else None
            if part is not None:
                step = part if step is None else step + part
        if step is None:
            return h
        norm = h.float().flatten(1).norm(dim=1)[:, None, None, None]
        step = step * norm * self.settings.strength * chosen[:, None, None, None]
        return (h.float() + step).to(h.dtype)

    def _edited(self, rows: Rows) -> Tensor:
        """bool [R]: the rows that may be changed."""
        return rows.conditional if self.settings.rows == COND else ~rows.exempt

    def _classes(self, device: torch.device) -> dict[str, Tensor]:
        """Assigned class per attribute: int64 [N]."""
        per_cell = [self.target.cell_classes(c) for c in range(len(self.target.shares))]
        return {a: torch.tensor([per_cell[c][a] for c in self.cells.tolist()], device=device) for a in self.target.attributes}

    def _reading_of(self, attribute: str, image: Tensor) -> Tensor | None:
        read = self._read.get(attribute)
        return None if read is None else read[image]

    def _gradient_step(self, attribute: str, h: Tensor, image: Tensor, classes: Tensor, level: float) -> Tensor:
        """Unit gradient of the log-probability of the assigned class, a twentieth of the norm of h long (a choice, not a calibration)."""
        with torch.inference_mode(False), torch.enable_grad():
            x = h.detach().clone().float().requires_grad_(True)
            logits = self._predictor(pool(x), torch.full((x.shape[0],), level, device=h.device))[attribute]
            score = F.log_softmax(logits, -1).gather(1, classes[image][:, None].clone()).sum()
            (gradient,) = torch.autograd.grad(score, x)
        return 0.05 * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]

    # -- soft batch means -------------------------------------------------------------------------------------------------------------

    def _soft_step(self, h: Tensor, rows: Rows, level: float) -> Tensor:
        """One step down the paper's loss on the batch mean, in units of the norm of h: delta_i = -strength N |h_i|^2 dL/dh_i."""
        index = self._edited(rows).nonzero().flatten().to(h.device)
        if not len(index):
            return h
        with torch.inference_mode(False), torch.enable_grad():
            x = h.detach().clone().float()[index.clone()].requires_grad_(True)
            logits = self._predictor(pool(x), torch.full((len(index),), level, device=h.device))
            gradient = soft_loss_gradient(self.settings.mode, x, logits, self.target, SOFT_TEMPERATURE)
        square = x.detach().flatten(1).pow(2).sum(1)[:, None, None, None]
        out = h.clone()
        out[index] = (h[index].float() - self.settings.strength * len(index) * square * gradient).to(h.dtype)
        return out


def chosen_moves(adp: AdpFile, settings: GuidanceSettings, attributes: tuple[str, ...]) -> dict[str, Move]:
    """The moves that a direction names, attribute -> move. Raises ValueError where the file does not hold them."""
    sources = adp.sources()
    found = {}
    for attribute in attributes:
        held = sources.get(attribute, {})
        move = adp.moves.get(attribute) if settings.direction == CALIBRATED else held.get(settings.direction)
        if move is None:
            what = "calibrated" if settings.direction == CALIBRATED else f"'{settings.direction}'"
            others = [*held, *([GRADIENT] if attribute in adp.read else [])]
            choose = " or ".join(f"'{d}'" for d in others)
            raise ValueError(
                f"this ADP {'reads' if attribute in adp.read else 'knows'} '{attribute}' but holds no {what} moves for it; it holds: "
                f"{', '.join(held) or 'none'} (calibrated: {', '.join(adp.moves) or 'none'}). Calibrate it"
                + (f", or choose direction {choose}." if others else ".")
            )
        found[attribute] = move
    return found


def move_vector(move: Move, classes: Tensor, reading: Tensor | None, level: float, shape: torch.Size) -> Tensor:
    """The calibrated step of every row, in units of the norm of h.

    classes int64 [R]; reading [R, K] or None; shape of h [R, C, H, W]. The 4x4 vector is brought to H x W with its L2 norm kept.
    float32 [R, C, H, W]. Raises ValueError where C differs.
    """
    device = classes.device
    if move.vectors.shape[3] != shape[1]:
        raise ValueError(
            f"the moves of this ADP are for {move.vectors.shape[3]} channels at '{move.site}' and met {shape[1]}: it was made for another "
            "diffusion model, so load an ADP that was trained on the connected one."
        )
    at = torch.full((1,), level, device=device)
    vectors = at_level(move.vectors, move.knots, at)[0]
    sizes = at_level(move.sizes, move.knots, at)[0]
    chosen = vectors[classes]
    if chosen.shape[1] == 1:
        mixed = chosen[:, 0]
        if move.relative:
            weights = reading if reading is not None else vectors.new_full((len(classes), len(vectors)), 1 / len(vectors))
            mixed = mixed - torch.einsum("rk,kcij->rcij", weights, vectors[:, 0])
    else:
        weights = reading if reading is not None else chosen.new_full(chosen.shape[:2], 1 / chosen.shape[1])
        mixed = torch.einsum("rk,rkcij->rcij", weights, chosen)
    mixed = mixed * sizes[classes][:, None, None, None]
    return resized(mixed, *shape[-2:])


def resized(vectors: Tensor, height: int, width: int) -> Tensor:
    """Vectors [R, C, 4, 4] -> [R, C, H, W] of the same L2 norm: nearest upsampling, averages where the map is smaller than the grid."""
    if (height, width) == (GRID, GRID):
        return vectors
    even = GRID / math.sqrt(height * width)
    if height % GRID == 0 and width % GRID == 0:
        return F.interpolate(vectors, size=(height, width), mode="nearest") * even
    small = min(height, width) < GRID
    out = average(vectors, height, width) if small else F.interpolate(vectors, size=(height, width), mode="nearest")
    # The cells differ in area, so that the norm does not follow from the sizes alone (SDXL's middle block at 832 x 1216 is 26 x 38).
    before, after = (v.detach().flatten(1).norm(dim=1) for v in (vectors, out))
    scale = torch.where(after > 1e-3 * before, before / after.clamp(min=1e-12), torch.full_like(after, even))
    return out * scale[:, None, None, None]
