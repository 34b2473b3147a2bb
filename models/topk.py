"""The k largest of many: exact, and on a CPU several times faster than a plain top-k of wide rows."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values [N, k] and indices int64 [N, k] of the k largest of each row of x [N, m], in no order.

    The k largest of a row lie in the k groups of columns whose largest are largest, so only those groups are looked through. Where values
    are equal, which of them are taken is not said. ValueError where k > m.
    """
    n, m = x.shape
    if k > m:
        raise ValueError(f"{k} of {m} values cannot be chosen: k is at most the number of values.")
    size = _group_size(m, k) if x.device.type == "cpu" else 1
    if size == 1:
        return x.topk(k, dim=1, sorted=False)
    groups = m // size
    best = x.view(n, size, groups).amax(1).topk(k, dim=1, sorted=False)[1]
    places = (best[:, None, :] + torch.arange(0, m, groups, device=x.device)[:, None]).flatten(1)
    values, chosen = x.gather(1, places).topk(k, dim=1, sorted=False)
    return values, places.gather(1, chosen)


def _group_size(m: int, k: int) -> int:
    """Columns per group: the divisor of m that leaves the least to look through; 1 where grouping does not pay."""
    costs = {size: m // size + k * size for size in range(2, 65) if m % size == 0 and m // size >= k}
    best = min(costs, key=costs.get, default=1)
    return best if costs.get(best, m) * 2 <= m else 1
