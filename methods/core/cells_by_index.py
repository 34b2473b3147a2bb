"""A class for every image by its index, so that all parts of a batch follow one decision, however the batch is cut."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .assignment import SHARE_UNITS, seeded_assignment
from .joint_quotas import joint_quotas, serpentine

ORDER = (0, 1, 3, 2, 5, 4, 6, 7)
"""Order of eight consecutive seeds. Seeds that are counted up in twos, fours, tens or hundreds meet all classes with it."""
BLOCK = 256
"""Consecutive seeds that share an offset. Seeds that are counted up in thousands meet all classes with it."""


def cells_by_index(shares: Sequence[float], sizes: Sequence[int], index: Iterable[int], seed: int, images: int | None = None) -> Tensor:
    """Return the cell of each image of a batch by its index in the batch, int64 [len(index)].

    ``shares`` and ``sizes`` are those of a target (row-major cells, classes per attribute). ``images``: size of the whole batch; None if it
    is not known. The cell depends on these numbers, the index and the seed alone. So images that are sampled in parts, or picked from a
    batch, keep their cells.

    A batch is a stretch of one endless sequence (:func:`cell_at`) that starts at a position from the seed: its first n images get nearly
    n * share images of every cell, and exactly that number if all these numbers are whole. Over random seeds, every image gets every cell
    with exactly its share. Only a batch of known size with a joint target differs: its attributes are to be even too, so it gets the quotas
    of :func:`.joint_quotas.joint_quotas`, in a random order.
    """
    if len(sizes) > 1 and images is not None and images > 1:
        return seeded_assignment(joint_quotas(shares, sizes, images, seed), seed)[list(index)]
    order = serpentine(tuple(sizes))
    units = [round(shares[cell] * SHARE_UNITS) for cell in order]
    start = _first_position(seed)
    return torch.tensor([order[cell_at(start + i, units)] for i in index], dtype=torch.long)


def cell_at(position: int, units: Sequence[int]) -> int:
    """Return the cell at a position of the endless sequence that follows these shares.

    ``units``: shares in whole units. The cells are split in two again and again. At a split whose left half has the share p, image j of
    those that reach it goes left if floor((j + 1) p) > floor(j p): each half then gets its share of every stretch, rounded up or down
    (systematic sampling, Madow 1949).
    """
    first, last = 0, len(units)
    while last - first > 1:
        middle, total = (first + last) // 2, sum(units[first:last])
        left = sum(units[first:middle])
        before, after = (position * left // total, (position + 1) * left // total) if total else (0, 0)
        if after > before:
            last, position = middle, before
        else:
            first, position = middle, position - before
    return first


def _first_position(seed: int) -> int:
    """Return the position of a batch's first image in the endless sequence.

    Any eight consecutive seeds of a block begin at eight positions that differ modulo 8. So eight single images follow 1/2, 1/4 and 1/8
    exactly.
    """
    return seed // 8 * 8 + ORDER[seed % 8] + random.Random(seed // BLOCK).randrange(2**20)
