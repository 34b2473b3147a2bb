"""The k largest of many: exact, and on a CPU several times faster than a plain top-k of wide rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FEW_THREADS = 2
"""Up to so many threads numpy, which works on one with vector instructions, finds the k largest of a short row sooner than torch."""


def top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row of x [N, m], and their indices.

    Values [N, k] and indices int64 [N, k], in no order.

    The k largest of a row lie in the k groups of columns whose largest are largest, so only those groups are looked through. Where values
    are equal, which of them are taken is not said. ValueError where k > m.
    """
    n, m = x.shape
    if k > m:
        raise ValueError(f"cannot choose {k} of {m} values: k must be at most the number of values.")
    size = _group_size(m, k) if x.device.type == "cpu" else 1
    if size == 1:
        return x.topk(k, dim=1, sorted=False)
    groups = m // size
    best = _indices_of_largest(x.view(n, size, groups).amax(1), k)
    candidates = (best[:, None, :] + torch.arange(0, m, groups, device=x.device)[:, None]).flatten(1)
    values = x.gather(1, candidates)
    chosen = _indices_of_largest(values, k)
    return values.gather(1, chosen), candidates.gather(1, chosen)


def _indices_of_largest(x: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest of each row, on the CPU.

    int64 [N, k] of x [N, m].
    """
    n, m = x.shape
    if x.dtype == torch.float32 and k < m and torch.get_num_threads() <= FEW_THREADS:
        rows = x.detach().numpy()
        threshold = np.partition(rows, m - k, axis=1)[:, m - k, None]
        positions = np.flatnonzero(rows >= threshold)
        if len(positions) == n * k:  # else values are equal, or not numbers
            return torch.from_numpy(positions % m).view(n, k)
    return x.topk(k, dim=1, sorted=False)[1]


def _group_size(m: int, k: int) -> int:
    """Choose the number of columns per group.

    The divisor of m that leaves the least to look through; 1 if grouping does not pay.
    """
    costs = {size: m // size + k * size for size in range(2, 65) if m % size == 0 and m // size >= k}
    best = min(costs, key=costs.get, default=1)
    return best if costs.get(best, m) * 2 <= m else 1
