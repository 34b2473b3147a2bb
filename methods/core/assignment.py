"""Who becomes what: quotas for a batch, and the assignment of images to classes that asks for the least change."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def seed_offset(seed: int) -> float:
    """A number in 0..1 for a seed (Weyl sequence of the golden ratio): uniform over random seeds, and spread evenly over seeds in a row."""
    return ((seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF) / 2**64


def quotas(shares: Sequence[float], n: int, seed: int) -> list[int]:
    """Whole numbers of images per cell that sum to ``n`` and whose expectation over seeds is exactly n * shares.

    The floor of the expected counts, the remainder by systematic sampling (Madow 1949) with an offset from the seed, so that no cell is
    favoured at any batch size. The offsets of consecutive seeds are spread evenly: a queue that counts its seed up stays near the target
    even at batch 1.
    """
    expected = np.asarray(shares, dtype=np.float64) * n
    counts = np.floor(expected + 1e-9).astype(int)
    rest = np.clip(expected - counts, 0, None)
    open_places = n - int(counts.sum())
    if open_places > 0:
        edges = np.cumsum(rest) * (open_places / rest.sum())
        points = seed_offset(seed) + np.arange(open_places)
        # A cell without a remainder has no interval of its own and is never picked; the last point may meet the last edge by rounding.
        last = int(np.nonzero(rest)[0][-1])
        np.add.at(counts, np.minimum(np.searchsorted(edges, points, side="right"), last), 1)
    return counts.tolist()


WHOLE = 10**9
"""Shares are compared as whole numbers of this, so that equal shares tie exactly and no count is ever a fraction."""


def ledger_quotas(shares: Sequence[float], n: int, seen_counts: Sequence[int], seed: int) -> list[int]:
    """Whole numbers of images per cell that sum to ``n`` and bring what a ledger has counted nearest to the shares.

    The places are given one by one to the cell that lacks most of its share of all images, those counted and these; ties are drawn from
    the seed. Without counts this is the largest-remainder rule; n runs of one image give what one run of n images gives, but for ties.
    A cell whose share is 0 gets nothing. Raises ValueError where there are not as many counts as shares.
    """
    if len(seen_counts) != len(shares):
        raise ValueError(f"a ledger has one count per cell: met {len(seen_counts)} counts for {len(shares)} shares.")
    weights = [round(share * WHOLE) for share in shares]
    whole, total = sum(weights), sum(seen_counts) + n
    order = list(range(len(shares)))
    random.Random(seed).shuffle(order)
    lacking = [
        (seen * whole - weight * total, rank, cell)
        for cell, (weight, seen, rank) in enumerate(zip(weights, seen_counts, order, strict=True))
        if weight
    ]
    heapq.heapify(lacking)
    counts = [0] * len(shares)
    for _ in range(n):
        surplus, rank, cell = lacking[0]
        counts[cell] += 1
        heapq.heapreplace(lacking, (surplus + whole, rank, cell))
    return counts


def seeded_assignment(counts: Sequence[int], seed: int) -> Tensor:
    """A random order of cells with the given counts: int64 [sum(counts)]. Used where early readings tell too little."""
    cells = torch.repeat_interleave(torch.arange(len(counts)), torch.as_tensor(counts))
    generator = torch.Generator().manual_seed((seed * 2 + 1) & 0x7FFFFFFFFFFFFFFF)
    return cells[torch.randperm(len(cells), generator=generator)]


def least_change_assignment(log_probabilities: Tensor, counts: Sequence[int]) -> Tensor:
    """Assign images to cells with the given counts so that the sum of log-probabilities is greatest.

    log_probabilities [N, cells]; counts sum to N. Returns int64 [N] (CPU). Minimum-cost assignment (Jonker-Volgenant, scipy).
    Raises ValueError where the counts do not sum to N.
    """
    n = log_probabilities.shape[0]
    if sum(counts) != n:
        raise ValueError(f"quotas sum to {sum(counts)} for {n} images.")
    places = np.repeat(np.arange(len(counts)), counts)
    cost = -log_probabilities.detach().float().cpu().clamp(min=-50.0).numpy()[:, places]
    rows, columns = linear_sum_assignment(cost)
    assigned = np.empty(n, dtype=np.int64)
    assigned[rows] = places[columns]
    return torch.from_numpy(assigned)
