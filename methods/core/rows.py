"""Which row of a U-Net call is which image, and in which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONDITIONAL, UNCONDITIONAL, EXEMPT = "cond", "uncond", "exempt"
BY_NUMBER = "by number"
"""Of a conditioning that stands on both sides: its number in ``cond_or_uncond`` says which it is."""


@dataclass(frozen=True)
class Rows:
    """``image`` int64 [R]: index of the image that each row belongs to; ``conditional`` bool [R]: of the positive, and not exempt;
    ``images``: how many the run has, of which a call may hold only some; ``exempt`` bool [R]: of a conditioning that is neither to be
    read nor edited, on whichever side."""

    image: Tensor
    conditional: Tensor
    images: int
    exempt: Tensor

    @property
    def unconditional(self) -> Tensor:
        """bool [R]: of the negative, and not exempt."""
        return ~(self.conditional | self.exempt)


def read_rows(rows: int, options: Mapping[str, Any], roles: Mapping[Any, str] | None = None, images: int | None = None) -> Rows | None:
    """Tell the rows of a call apart.

    The host batches chunks of B rows, one per entry of ``cond_or_uncond``; packs that tile repeat all the chunks per tile. Hence, for row
    r: chunk = (r // B) mod K, and r mod B is its place in the batch, with B = len(sigmas). That place is the image, but where the call is
    a context window over the batch, which lists its images. ``roles`` maps the uuid of a conditioning to "cond", "uncond", "exempt" or
    "by number" (guiders number their conditionings as they like); where it is given, a conditioning that it does not name is another
    patch's own (the empty prompt of Perp-Neg) and not the positive. Without it index 0 is taken as conditional. ``images``: of the
    whole run, where that is known. None where the rows do not fit this pattern.
    """
    marks = options.get("cond_or_uncond") or [0]
    batch = int(options["sigmas"].shape[0])
    chunks = len(marks)
    if batch == 0 or rows % (batch * chunks):
        return None
    window = _window(options, batch)
    if window is None:
        return None
    uuids = list(options.get("uuids") or ())[:chunks]
    uuids += [None] * (chunks - len(uuids))
    index = torch.arange(rows)
    named = [_role(uuid, mark, roles) for uuid, mark in zip(uuids, marks, strict=True)]
    conditional = torch.tensor([name == CONDITIONAL for name in named])
    exempt = torch.tensor([name == EXEMPT for name in named])
    chunk = (index // batch) % chunks
    image = window[index % batch]
    return Rows(image, conditional[chunk], max(images or 0, int(window.max()) + 1), exempt[chunk])


def _role(uuid: Any, mark: int, roles: Mapping[Any, str] | None) -> str:
    """Of one chunk."""
    name = BY_NUMBER if uuid is None or not roles else roles.get(uuid, UNCONDITIONAL)
    if name != BY_NUMBER:
        return name
    return CONDITIONAL if mark == 0 else UNCONDITIONAL


def _window(options: Mapping[str, Any], batch: int) -> Tensor | None:
    """int64 [B]: the images that a batch of rows holds; None where a context window over the batch does not say so."""
    window = options.get("context_window")
    if window is None or getattr(window, "dim", None) != 0:
        return torch.arange(batch)
    listed = list(window.index_list)
    anchor = getattr(window, "causal_anchor_index", None)
    if anchor is not None and anchor >= 0:
        listed = [anchor, *listed]
    return torch.tensor(listed) if len(listed) == batch else None
