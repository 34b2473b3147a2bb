"""Distribution guidance: the edit of h at one call of the denoiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.adp import AdpFile, Move
from ...models.sites import pool
from ..core.batch_run import BatchRun, BatchSettings, active
from ..core.rows import Rows
from ..core.targets import TargetDistribution
from .losses import SOFT_LOSSES, soft_loss_gradient
from .moves import CALIBRATED, GRADIENT, chosen_moves, move_vector

QUOTA = "quota"
MODES = (QUOTA, *SOFT_LOSSES)
SOFT_TEMPERATURE = 8.0
"""Temperature of the soft batch mean in the paper's losses."""


@dataclass(frozen=True)
class GuidanceSettings(BatchSettings):
    """Hold what the user chose for distribution guidance."""

    mode: str = QUOTA
    """The mode "quota", or one of the paper's losses."""
    direction: str = CALIBRATED
    """Which of the file's moves are used."""


def resolve_guidance(adp: AdpFile, settings: GuidanceSettings) -> tuple[TargetDistribution, dict[str, Move]]:
    """Return the target in the ADP's class order, and the moves that the settings name.

    Raises ValueError for a target that the ADP does not know, moves that it does not hold, and settings that need a reading that it does
    not give.
    """
    target = settings.target.reordered(adp.attributes)
    by_moves = settings.mode == QUOTA and settings.direction != GRADIENT
    if by_moves:
        return target, chosen_moves(adp, settings.direction, target.attributes)
    unread = [a for a in target.attributes if a not in adp.read]
    if unread:
        what = f"direction '{GRADIENT}'" if settings.mode == QUOTA else f"mode '{settings.mode}'"
        raise ValueError(
            f"this ADP does not read '{unread[0]}', and {what} needs its reading: set mode to '{QUOTA}' and direction to one that the file "
            f"holds ({', '.join(adp.sources().get(unread[0], {})) or 'none'}), or add the attribute with Train ADP."
        )
    return target, {}


class GuidanceRun(BatchRun):
    """Assign every image a class, and edit h with the ADP's moves.

    Raises ValueError as :func:`resolve_guidance` does.
    """

    what = "distribution guidance"

    def __init__(self, adp: AdpFile, settings: GuidanceSettings) -> None:
        target, moves = resolve_guidance(adp, settings)
        super().__init__(adp.predictor, adp.site, settings, target, moves)
        self.decides = settings.mode == QUOTA
        self.takes_gradient = settings.mode != QUOTA or settings.direction == GRADIENT

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """Edit h by the moves of the assigned classes, or down the paper's loss."""
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
                move = self._on_device[attribute]
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
        """Return the gradient of the assigned class's log-probability.

        It is scaled to 0.05 norms of h, which is a choice and not a calibration.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = h.detach().clone().float().requires_grad_(True)
            logits = self._predictor(pool(x), torch.full((x.shape[0],), level, device=h.device))[attribute]
            score = F.log_softmax(logits, -1).gather(1, classes[image][:, None].clone()).sum()
            (gradient,) = torch.autograd.grad(score, x)
        return 0.05 * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]

    def _soft_step(self, h: Tensor, rows: Rows, level: float) -> Tensor:
        """Step down the paper's loss on the batch mean.

        In units of the norm of h: delta_i = -strength N |h_i|^2 dL/dh_i.
        """
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
