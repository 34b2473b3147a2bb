"""Moves of an ADP: which of them a direction names, and the step that they make at a level."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.adp import AdpFile, Move
from ...models.sites import GRID, average
from .directions import CONTRAST, KINDS

CALIBRATED, LEARNED, LEARNED_PROMPTS, GRADIENT = "calibrated", "learned", "learned-prompts", "adp-gradient"
FITTED = (LEARNED, LEARNED_PROMPTS)
"""Moves that were fitted through the decoder. Their lengths come out of the fit, and calibration only multiplies them."""
DIRECTIONS = (CALIBRATED, *FITTED, *KINDS, CONTRAST, GRADIENT)


def chosen_moves(adp: AdpFile, direction: str, attributes: tuple[str, ...]) -> dict[str, Move]:
    """Return the moves that a direction names, attribute -> move.

    Raises ValueError where the file does not hold them.
    """
    sources = adp.sources()
    chosen = {}
    for attribute in attributes:
        known = sources.get(attribute, {})
        move = adp.moves.get(attribute) if direction == CALIBRATED else known.get(direction)
        if move is None:
            raise ValueError(_missing_move(adp, direction, attribute, list(known)))
        chosen[attribute] = move
    return chosen


def _missing_move(adp: AdpFile, direction: str, attribute: str, known: list[str]) -> str:
    what = "calibrated moves" if direction == CALIBRATED else f"moves named '{direction}'"
    others = [*known, *([GRADIENT] if attribute in adp.read else [])]
    choice = " or ".join(f"'{d}'" for d in others)
    remedy = f", or set direction to {choice}." if others else "."
    own = f"moves from {', '.join(known)}" if known else "no other moves"
    others_calibrated = f", and calibrated moves for {', '.join(adp.moves)}" if adp.moves else ""
    return (
        f"this ADP has no {what} for '{attribute}' (it has {own} for it{others_calibrated}): calibrate '{attribute}' with Calibrate "
        f"ADP{remedy}"
    )


def move_vector(move: Move, classes: Tensor, reading: Tensor | None, level: float, shape: torch.Size) -> Tensor:
    """Return the step of every row, in units of the norm of h.

    float32 [R, C, H, W].
    ``classes``: int64 [R]. ``reading``: [R, K] or None. ``shape``: that of h, [R, C, H, W]. The 4x4 vector is resized to H x W with the
    same L2 norm. Raises ValueError where C differs.
    """
    if move.vectors.shape[3] != shape[1]:
        raise ValueError(
            f"the moves of this ADP have {move.vectors.shape[3]} channels at '{move.site}', and this model has {shape[1]} there: the ADP "
            "was made for another diffusion model, so load one that was trained on the connected model."
        )
    return resized(move.towards(classes, reading, level), *shape[-2:])


def resized(vectors: Tensor, height: int, width: int) -> Tensor:
    """Resize vectors [R, C, 4, 4] to [R, C, H, W] of the same norm.

    By nearest upsampling, or by averages where h is smaller than 4x4.
    """
    if (height, width) == (GRID, GRID):
        return vectors
    even = GRID / math.sqrt(height * width)
    if height % GRID == 0 and width % GRID == 0:
        return F.interpolate(vectors, size=(height, width), mode="nearest") * even
    small = min(height, width) < GRID
    out = average(vectors, height, width) if small else F.interpolate(vectors, size=(height, width), mode="nearest")
    # The blocks differ in area, so the norm does not follow from the sizes alone (SDXL's middle block at 832 x 1216 is 26 x 38).
    before, after = (v.detach().flatten(1).norm(dim=1) for v in (vectors, out))
    scale = torch.where(after > 1e-3 * before, before / after.clamp(min=1e-12), torch.full_like(after, even))
    return out * scale[:, None, None, None]
