"""Weights of the reference data of ADM U-Nets, which anyone can rebuild."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def formula_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Build float32 weights by the formula in ``data/README.md``, for parameters given by name and shape."""
    out = {}
    for n, name in enumerate(sorted(shapes)):
        shape = tuple(shapes[name])
        elements = torch.Size(shape).numel()
        fan = elements / shape[0] if len(shape) > 1 else 64
        w = torch.sin(0.7310585 * torch.arange(elements, dtype=torch.float64) + 1.618033988 * (n + 1)) * 0.85 / fan**0.5
        if len(shape) == 1 and name.endswith("weight"):
            w = 1 + 0.1 * w
        out[name] = w.float().reshape(shape)
    return out
