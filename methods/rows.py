"""Which row of a U-Net call is which image, and in which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONDITIONAL, UNCONDITIONAL = "cond", "uncond"


@dataclass(frozen=True)
class Rows:
    """``image`` int64 [R]: index of the image that each row belongs to; ``conditional`` bool [R]; ``images``: how many there are."""

    image: Tensor
    conditional: Tensor
    images: int


def read_rows(rows: int, options: Mapping[str, Any], roles: Mapping[Any, str] | None = None) -> Rows | None:
    """Tell the rows of a call apart.

    The host batches chunks of B rows, one per entry of ``cond_or_uncond``; packs that tile repeat all the chunks per tile. Hence, for row
    r: chunk = (r // B) mod K, image = r mod B, with B = len(sigmas). ``roles`` maps the uuid of a conditioning to "cond" or "uncond"
    (guiders number their conditionings as they like); without it index 0 is taken as conditional. None where the rows do not fit this
    pattern.
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
    return Rows(image=index % batch, conditional=conditional[(index // batch) % chunks], images=batch)
