"""Weigh images so that attributes are independent of each other, and a fit of one does not bring another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROUNDS, LARGEST = 20, 10.0
"""Rounds of the fit, and the largest weight of an image relative to its class's average: a rare combination has few pictures."""


def raked(labels: Mapping[str, Tensor], attribute: str, rounds: int = ROUNDS, largest: float = LARGEST) -> Tensor:
    """Return weights float32 [N] that make the other attributes independent of one attribute.

    They sum to 1.

    Every class of it has the same weight, and within each class every other attribute has the shares that it has over all images.
    ``labels``: attribute -> class int64 [N]. By iterative proportional fitting (raking; Deming and Stephan, 1940), in float64 on the CPU.
    """
    own = labels[attribute].cpu()
    others = {a: v.cpu() for a, v in labels.items() if a != attribute}
    weights = torch.zeros(len(own), dtype=torch.float64)
    classes = own.unique()
    for c in classes:
        inside = (own == c).nonzero().flatten()
        w = torch.full((len(inside),), 1 / len(inside), dtype=torch.float64)
        for _ in range(rounds):
            for v in others.values():
                k = int(v.max()) + 1
                wanted = torch.bincount(v, minlength=k).double() / len(v)
                current = torch.zeros(k, dtype=torch.float64).index_add_(0, v[inside], w)
                w = w * (wanted / current.clamp(min=1e-12))[v[inside]]
            w = w / w.sum()
        for _ in range(rounds):
            w = w.clamp(max=largest / len(inside))
            w = w / w.sum()
        weights[inside] = w / len(classes)
    return weights.float()
