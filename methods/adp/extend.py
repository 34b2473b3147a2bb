"""Add attributes to a predictor, and remove them, without changing the others.

Every group of attributes has its own hidden units: the layers of two predictors are blocks of one, with zeros between them.
Weights are copied bit for bit; readings may differ in their last bit, as sums over wider layers may be taken in another order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...models.adp import AttributePredictor


def joined_predictor(old: AttributePredictor, new: AttributePredictor) -> AttributePredictor:
    """Join the attributes of two predictors in one.

    Raises ValueError unless they have kind, width, levels, statistics and, for "mlp", the level embedding in common.
    """
    same = [old.kind == new.kind, old.channels == new.channels, torch.equal(old.knots, new.knots)]
    same += [torch.equal(old.mean, new.mean), torch.equal(old.std, new.std)]
    if old.kind == "mlp":
        same += [torch.equal(old.modulate[0].weight, new.modulate[0].weight), torch.equal(old.modulate[0].bias, new.modulate[0].bias)]
    if not all(same) or set(old.attributes) & set(new.attributes):
        raise ValueError("two predictors can be joined only if they share levels and statistics and have different attributes.")
    with torch.inference_mode(False), torch.no_grad():
        both = _like(old, {**old.attributes, **new.attributes}, old.hidden + new.hidden)
        for attribute, table in [*old.temperature.items(), *new.temperature.items()]:
            both.temperature[attribute].copy_(table)
        if old.kind == "linear":
            both.weight.copy_(torch.cat([old.weight, new.weight], dim=1))
            both.bias.copy_(torch.cat([old.bias, new.bias], dim=1))
            return both.eval().requires_grad_(False)
        for name in ("weight", "bias"):
            getattr(both.project, name).copy_(_stacked(old.project, new.project, name))
            getattr(both.modulate[0], name).copy_(getattr(old.modulate[0], name))
            halves = [getattr(p.modulate[2], name).chunk(2) for p in (old, new)]  # scales, then shifts
            getattr(both.modulate[2], name).copy_(torch.cat([halves[0][0], halves[1][0], halves[0][1], halves[1][1]]))
        for layer in ("mix", "read"):
            getattr(both, layer).weight.copy_(torch.block_diag(getattr(old, layer).weight, getattr(new, layer).weight))
            getattr(both, layer).bias.copy_(_stacked(getattr(old, layer), getattr(new, layer), "bias"))
        return both.eval().requires_grad_(False)


def without(predictor: AttributePredictor, attributes: Sequence[str]) -> AttributePredictor:
    """Remove attributes from a predictor, with the hidden units that only they used.

    At least one must remain.
    """
    remaining = {a: c for a, c in predictor.attributes.items() if a not in attributes}
    rows, start = [], 0
    for attribute, classes in predictor.attributes.items():
        if attribute in remaining:
            rows += range(start, start + len(classes))
        start += len(classes)
    with torch.inference_mode(False), torch.no_grad():
        if predictor.kind == "linear":
            less = _like(predictor, remaining, predictor.hidden)
            less.weight.copy_(predictor.weight[:, rows])
            less.bias.copy_(predictor.bias[:, rows])
        else:
            units = _used_units(predictor, rows)
            less = _like(predictor, remaining, len(units))
            both = torch.cat([units, units + predictor.hidden])
            for name in ("weight", "bias"):
                getattr(less.project, name).copy_(getattr(predictor.project, name)[units])
                getattr(less.modulate[0], name).copy_(getattr(predictor.modulate[0], name))
                getattr(less.modulate[2], name).copy_(getattr(predictor.modulate[2], name)[both])
            less.mix.weight.copy_(predictor.mix.weight[units][:, units])
            less.mix.bias.copy_(predictor.mix.bias[units])
            less.read.weight.copy_(predictor.read.weight[rows][:, units])
            less.read.bias.copy_(predictor.read.bias[rows])
        for attribute in remaining:
            less.temperature[attribute].copy_(predictor.temperature[attribute])
        return less.eval().requires_grad_(False)


def _used_units(predictor: AttributePredictor, rows: list[int]) -> Tensor:
    """Find the hidden units that these outputs read, or that are mixed into them."""
    read = (predictor.read.weight[rows] != 0).any(0)
    mixed = (predictor.mix.weight[read] != 0).any(0)
    units = (read | mixed).nonzero().flatten()
    return units if len(units) else torch.zeros(1, dtype=torch.long)


def _like(p: AttributePredictor, attributes: dict[str, tuple[str, ...]], hidden: int) -> AttributePredictor:
    """Make a predictor of the same kind, width, levels and statistics.

    Its weights are still to be set.
    """
    with torch.random.fork_rng(devices=[]):  # its initial weights are drawn, and the global random numbers must not change
        made = AttributePredictor(attributes, p.channels, p.knots.clone(), p.kind, hidden)
    made.mean.copy_(p.mean)
    made.std.copy_(p.std)
    return made


def _stacked(old: torch.nn.Linear, new: torch.nn.Linear, name: str) -> Tensor:
    return torch.cat([getattr(old, name), getattr(new, name)])
