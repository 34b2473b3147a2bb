"""Which row of a U-Net call is which image, and in which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONDITIONAL, UNCONDITIONAL, EXEMPT = "cond", "uncond", "exempt"


@dataclass(frozen=True)
class Rows:
    """``image`` int64 [R]: index of the image that each row belongs to; ``conditional`` bool [R]: of the positive, and not exempt;
    ``images``: how many there are; ``exempt`` bool [R]: of a conditioning that is neither to be read nor edited, on whichever side."""

    image: Tensor
    conditional: Tensor
    images: int
    exempt: Tensor

    @property
    def unconditional(self) -> Tensor:
        """bool [R]: of the negative, and not exempt."""
        return ~(self.conditional | self.exempt)


def read_rows(rows: int, options: Mapping[str, Any], roles: Mapping[Any, str] | None = None) -> Rows | None:
    """Tell the rows of a call apart.

    The host batches chunks of B rows, one per entry of ``cond_or_uncond``; packs that tile repeat all the chunks per tile. Hence, for row
    r: chunk = (r // B) mod K, image = r mod B, with B = len(sigmas). ``roles`` maps the uuid of a conditioning to "cond", "uncond"
    or "exempt" (guiders number their conditionings as they like); without it index 0 is taken as conditional. None where the rows do not
    fit this pattern.
    """
    marks = options.get("cond_or_uncond") or [0]
    batch = int(options["sigmas"].shape[0])
    chunks = len(marks)
    if batch == 0 or rows % (batch * chunks):
        return None
    uuids = options.get("uuids") or [None] * chunks
    index = torch.arange(rows)
    named = [(roles or {}).get(uuids[i] if i < len(uuids) else None) for i in range(chunks)]
    conditional = torch.tensor([name == CONDITIONAL if name else mark == 0 for name, mark in zip(named, marks, strict=True)])
    exempt = torch.tensor([name == EXEMPT for name in named])
    chunk = (index // batch) % chunks
    return Rows(index % batch, conditional[chunk], batch, exempt[chunk])
