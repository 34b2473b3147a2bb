"""Rows of a call: which image each row belongs to, and in which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CONDITIONAL, UNCONDITIONAL, EXEMPT = "cond", "uncond", "exempt"
BY_NUMBER = "by number"
"""Role of a conditioning that is on both sides: its number in ``cond_or_uncond`` says which side a row is on."""


@dataclass(frozen=True)
class Rows:
    """Describe the rows of one call."""

    image: Tensor
    """Index of the image that each row belongs to, int64 [R]."""
    conditional: Tensor
    """Which rows are of the positive and not exempt, bool [R]."""
    images: int
    """Number of images of the run, of which a call may hold only some."""
    exempt: Tensor
    """Which rows are neither read nor edited, on whichever side, bool [R]."""

    @property
    def unconditional(self) -> Tensor:
        """Which rows are of the negative and not exempt, bool [R]."""
        return ~(self.conditional | self.exempt)


def read_rows(rows: int, options: Mapping[str, Any], roles: Mapping[Any, str] | None = None, images: int | None = None) -> Rows | None:
    """Find the image and the role of every row of a call.

    None where the rows do not fit the host's pattern.
    The host batches chunks of B rows, one per entry of ``cond_or_uncond``, and packs that tile repeat all the chunks per tile. Row r is
    therefore in chunk (r // B) mod K and at position r mod B of the batch, with B = len(sigmas). The position is the image, except in a
    context window over the batch, which lists its images.

    ``roles`` maps the uuid of a conditioning to "cond", "uncond", "exempt" or "by number". If it is given, a conditioning that it does not
    name belongs to another patch (the empty prompt of Perp-Neg) and is not the positive. Without it, index 0 is the positive. ``images``:
    number of images of the whole run, where it is known.
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
    """Return the role of one chunk."""
    name = BY_NUMBER if uuid is None or not roles else roles.get(uuid, UNCONDITIONAL)
    if name != BY_NUMBER:
        return name
    return CONDITIONAL if mark == 0 else UNCONDITIONAL


def _window(options: Mapping[str, Any], batch: int) -> Tensor | None:
    """Return the images of a batch of rows, int64 [B].

    None where a context window over the batch does not list them.
    """
    window = options.get("context_window")
    if window is None or getattr(window, "dim", None) != 0:
        return torch.arange(batch)
    listed = list(window.index_list)
    anchor = getattr(window, "causal_anchor_index", None)
    if anchor is not None and anchor >= 0:
        listed = [anchor, *listed]
    return torch.tensor(listed) if len(listed) == batch else None
