"""Distribution guidance: what happens to h at one U-Net call.

The state of one sampling run lives in :class:`GuidanceRun`; it is made when sampling starts and dropped when it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.adp import AdpFile, Move
from ...models.sites import GRID, average, pool
from ..core.batch_run import BatchRun, BatchSettings, active
from ..core.rows import Rows
from .directions import CONTRAST, KINDS
from .losses import SOFT_LOSSES, soft_loss_gradient

QUOTA = "quota"
MODES = (QUOTA, *SOFT_LOSSES)
CALIBRATED, LEARNED, LEARNED_PROMPTS, GRADIENT = "calibrated", "learned", "learned-prompts", "adp-gradient"
FITTED = (LEARNED, LEARNED_PROMPTS)
"""Moves that were fitted through the decoder: their lengths come out of the fit, and calibration only multiplies them."""
DIRECTIONS = (CALIBRATED, *FITTED, *KINDS, CONTRAST, GRADIENT)
SOFT_TEMPERATURE = 8.0
"""Temperature of the soft batch mean in the paper's losses."""


@dataclass(frozen=True)
class GuidanceSettings(BatchSettings):
    """What the user chose: ``mode`` "quota" or one of the paper's losses; ``direction``: which of the file's moves."""

    mode: str = QUOTA
    direction: str = CALIBRATED


class GuidanceRun(BatchRun):
    """State of one run: images are assigned a class, and moved to it by the ADP's moves.

    Raises ValueError, in a sentence, for a target that the ADP does not know, moves that it does not hold, and settings that go by a
    reading that it does not give.
    """

    what = "distribution guidance"

    def __init__(self, adp: AdpFile, settings: GuidanceSettings) -> None:
        target = settings.target.reordered(adp.attributes)
        unread = [a for a in target.attributes if a not in adp.read]
        moved = settings.mode == QUOTA and settings.direction != GRADIENT
        if unread and not moved:
            what = f"direction '{GRADIENT}'" if settings.mode == QUOTA else f"mode '{settings.mode}'"
            raise ValueError(
                f"this ADP does not read '{unread[0]}', which {what} goes by: choose mode '{QUOTA}' and a direction that the file "
                f"holds ({', '.join(adp.sources().get(unread[0], {})) or 'none'}), or add the attribute with Train ADP."
            )
        moves = chosen_moves(adp, settings, target.attributes) if moved else {}
        super().__init__(adp.predictor, adp.site, settings, target, moves)
        self.decides = settings.mode == QUOTA
        self.takes_gradient = settings.mode != QUOTA or settings.direction == GRADIENT

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """One call's edit: the moves of the assigned classes, or a step down the paper's loss."""
        s = self.settings
        if s.mode != QUOTA:
            return self._soft_step(h, rows, level) if site == self.read_at else h
        if not self.assign(rows, level, at_once=s.direction == GRADIENT):
            return h
        chosen = self.edited(rows).to(h.device)
        image = rows.image.to(h.device)
        classes = self.classes(h.device)
        step = None
        for attribute in self.target.attributes:
            part = None
            if s.direction == GRADIENT:
                if site == self.read_at:
                    part = self._gradient_step(attribute, h, image, classes[attribute], level)
            else:
                move = self._here[attribute]
                if move.site == site and active(move, level):
                    part = move_vector(move, classes[attribute][image], self.reading_of(attribute, image), level, h.shape)
            if part is not None:
                step = part if step is None else step + part
        if step is None:
            return h
        norm = h.float().flatten(1).norm(dim=1)[:, None, None, None]
        step = step * norm * s.strength * chosen[:, None, None, None]
        return (h.float() + step).to(h.dtype)

    def _gradient_step(self, attribute: str, h: Tensor, image: Tensor, classes: Tensor, level: float) -> Tensor:
        """Unit gradient of the log-probability of the assigned class, a twentieth of the norm of h long (a choice, not a calibration)."""
        with torch.inference_mode(False), torch.enable_grad():
            x = h.detach().clone().float().requires_grad_(True)
            logits = self._predictor(pool(x), torch.full((x.shape[0],), level, device=h.device))[attribute]
            score = F.log_softmax(logits, -1).gather(1, classes[image][:, None].clone()).sum()
            (gradient,) = torch.autograd.grad(score, x)
        return 0.05 * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]

    def _soft_step(self, h: Tensor, rows: Rows, level: float) -> Tensor:
        """One step down the paper's loss on the batch mean, in units of the norm of h: delta_i = -strength N |h_i|^2 dL/dh_i."""
        index = self.edited(rows).nonzero().flatten().to(h.device)
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
    if move.vectors.shape[3] != shape[1]:
        raise ValueError(
            f"the moves of this ADP are for {move.vectors.shape[3]} channels at '{move.site}' and met {shape[1]}: it was made for another "
            "diffusion model, so load an ADP that was trained on the connected one."
        )
    return resized(move.towards(classes, reading, level), *shape[-2:])


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
