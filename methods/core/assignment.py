"""Quotas for a batch, and the assignment of images to cells with the least change."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def seed_offset(seed: int) -> float:
    """Turn a seed into a number in 0..1.

    Uniform over random seeds, and evenly spread over consecutive ones (Weyl sequence of the golden ratio).
    """
    return ((seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF) / 2**64


def quotas(shares: Sequence[float], n: int, seed: int) -> list[int]:
    """Share ``n`` images out over cells; over seeds, the mean is exactly n * shares.

    Every cell gets the floor of its expected count. The remainder is drawn by systematic sampling (Madow 1949) with an offset from the
    seed, so that no cell is favoured at any batch size. The offsets of consecutive seeds are spread evenly, so a queue that counts its seed
    up stays near the target even at batch 1.
    """
    expected = np.asarray(shares, dtype=np.float64) * n
    counts = np.floor(expected + 1e-9).astype(int)
    rest = np.clip(expected - counts, 0, None)
    remainder = n - int(counts.sum())
    if remainder > 0:
        edges = np.cumsum(rest) * (remainder / rest.sum())
        points = seed_offset(seed) + np.arange(remainder)
        # A cell without a remainder has no interval of its own and is never picked; the last point may meet the last edge by rounding.
        last = int(np.nonzero(rest)[0][-1])
        np.add.at(counts, np.minimum(np.searchsorted(edges, points, side="right"), last), 1)
    return counts.tolist()


SHARE_UNITS = 10**9
"""Units of a share of 1. Shares are compared as whole numbers, so that equal shares tie exactly."""


def ledger_quotas(shares: Sequence[float], n: int, seen_counts: Sequence[int], seed: int) -> list[int]:
    """Share ``n`` images out so that the ledger's counts come nearest the shares.

    Each image goes to the cell that lacks most of its share of all images, those counted and these. The seed decides ties. Without counts
    this is the largest-remainder rule. Except for ties, n runs of one image give the same as one run of n images. A cell whose share is 0
    gets nothing. Raises ValueError where there are not as many counts as shares.
    """
    if len(seen_counts) != len(shares):
        raise ValueError(f"a ledger has one count per cell, but there are {len(seen_counts)} counts for {len(shares)} shares.")
    weights = [round(share * SHARE_UNITS) for share in shares]
    units, total = sum(weights), sum(seen_counts) + n
    order = list(range(len(shares)))
    random.Random(seed).shuffle(order)
    lacking = [
        (seen * units - weight * total, rank, cell)
        for cell, (weight, seen, rank) in enumerate(zip(weights, seen_counts, order, strict=True))
        if weight
    ]
    heapq.heapify(lacking)
    counts = [0] * len(shares)
    for _ in range(n):
        surplus, rank, cell = lacking[0]
        counts[cell] += 1
        heapq.heapreplace(lacking, (surplus + units, rank, cell))
    return counts


def seeded_assignment(counts: Sequence[int], seed: int) -> Tensor:
    """Return the cells in a random order with these counts, int64 [sum(counts)]."""
    cells = torch.repeat_interleave(torch.arange(len(counts)), torch.as_tensor(counts))
    generator = torch.Generator().manual_seed((seed * 2 + 1) & 0x7FFFFFFFFFFFFFFF)
    return cells[torch.randperm(len(cells), generator=generator)]


def least_change_assignment(log_probabilities: Tensor, counts: Sequence[int]) -> Tensor:
    """Assign images to cells with these counts so that the sum of log-probabilities is greatest.

    log_probabilities [N, cells]; counts sum to N. Returns int64 [N] (CPU). Minimum-cost assignment (Jonker-Volgenant, scipy).
    Raises ValueError where the counts do not sum to N.
    """
    n = log_probabilities.shape[0]
    if sum(counts) != n:
        raise ValueError(f"quotas sum to {sum(counts)} for {n} images.")
    slots = np.repeat(np.arange(len(counts)), counts)
    cost = -log_probabilities.detach().float().cpu().clamp(min=-50.0).numpy()[:, slots]
    rows, columns = linear_sum_assignment(cost)
    assigned = np.empty(n, dtype=np.int64)
    assigned[rows] = slots[columns]
    return torch.from_numpy(assigned)
