"""Who becomes what: quotas for a batch, and the assignment of images to classes that asks for the least change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def quotas(shares: Sequence[float], n: int, seed: int) -> list[int]:
    """Whole numbers of images per cell that sum to ``n`` and whose expectation over seeds is exactly n * shares.

    The floor of the expected counts, the remainder by systematic sampling (Madow 1949) with an offset and an order of the cells drawn from
    the seed, so that no cell is favoured at any batch size.
    """
    expected = np.asarray(shares, dtype=np.float64) * n
    counts = np.floor(expected + 1e-9).astype(int)
    rest = np.clip(expected - counts, 0, None)
    open_places = n - int(counts.sum())
    if open_places > 0:
        rng = np.random.default_rng([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, n])
        order = rng.permutation(len(rest))
        edges = np.cumsum(rest[order]) * (open_places / rest.sum())
        points = rng.random() + np.arange(open_places)
        picked = np.minimum(np.searchsorted(edges, points, side="right"), len(rest) - 1)
        np.add.at(counts, order[picked], 1)
    return counts.tolist()


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
