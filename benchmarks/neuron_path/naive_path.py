"""Find neuron paths as the published code does: the reference of the tests and of the benchmark.

Tests take it as the truth, and a benchmark compares its speed. For every layer it makes a clean pass, a full pass over all points of the
integral, and one gradient call for each layer of the path, for one image at a time. Hooks on the second linear map of each layer's
perceptron, whose input the neurons are, make it work on any network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]


@contextmanager
def with_inputs(modules: Sequence[nn.Module], values: dict[int, Tensor], rows: slice):
    """Replace the input of these modules in ``rows`` by values, layer by layer."""
    with ExitStack() as stack:
        for layer, value in values.items():

            def replace(_, inputs, value=value):
                x = inputs[0]
                before, after = x[:, : rows.start], x[:, rows.stop :] if rows.stop else x[:, :0]
                return (torch.cat([before, value, after], dim=1),)

            handle = modules[layer].register_forward_pre_hook(replace)
            stack.callback(handle.remove)
        yield


def clean_values(modules: Sequence[nn.Module], logits: Network, pixels: Tensor, rows: slice) -> list[Tensor]:
    """Return the hidden vectors of a full pass in ``rows``: L times [1, R, D]."""
    seen: dict[int, Tensor] = {}
    handles = [
        m.register_forward_pre_hook(lambda _, inputs, i=i: seen.__setitem__(i, inputs[0][:, rows].detach())) for i, m in enumerate(modules)
    ]
    try:
        with torch.no_grad():
            logits(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return [seen[i] for i in range(len(modules))]


def scaled_neurons(value: Tensor, chosen: Sequence[int], at: Tensor) -> Tensor:
    """Return clean values with the chosen neurons multiplied by the points: [m, R, D]."""
    out = value.repeat(len(at), 1, 1)
    out[:, :, list(chosen)] *= at.view(-1, 1, 1)
    return out


def neuron_product(grads: Sequence[Tensor], values: Sequence[Tensor], cls: bool) -> Tensor:
    """Multiply the sums of gradients and values of path neurons.

    At CLS it is the product of two sums, over patches the sum of products. grads and values: a [R, k] each.
    """
    if cls:
        return sum(g.sum() for g in grads) * sum(v.sum() for v in values)
    return sum((g * v).sum() for g, v in zip(grads, values, strict=True))


@dataclass(frozen=True)
class NaiveRule:
    """Choose candidates as the published code does, or as a variant of it."""

    whole_layer: bool = True
    """Whether all neurons of the layer in question move along the integral, as published."""
    top_k: int = 1
    """Neurons per layer."""
    cls: bool = True
    """Whether neurons are read at the CLS token; otherwise over all patches."""


def naive_path(
    modules: Sequence[nn.Module],
    logits: Network,
    pixels: Tensor,
    target: int,
    integral: tuple[Tensor, Tensor],
    objective: Callable[[Tensor, Tensor], Tensor],
    rule: NaiveRule,
) -> tuple[list[list[int]], list[Tensor], float, float]:
    """Find the path of one image [1, 3, H, W].

    ``integral``: points and weights. Returns path, candidate scores of every layer [D], joint score and additive part.
    """
    (points, weights), (whole_layer, top_k, cls) = integral, (rule.whole_layer, rule.top_k, rule.cls)
    rows = slice(0, 1) if cls else slice(1, None)
    repeated, targets = pixels.repeat(len(points), 1, 1, 1), torch.full((len(points),), target)
    path: list[list[int]] = []
    paths = []

    def gradients(leaves: dict[int, Tensor]) -> dict[int, Tensor]:
        with with_inputs(modules, leaves, rows):
            f = objective(logits(repeated), targets).sum()
        # One call for every layer.
        return {
            layer: (torch.autograd.grad(f, leaf, retain_graph=True)[0] * weights.view(-1, 1, 1)).sum(0) for layer, leaf in leaves.items()
        }

    for layer in range(len(modules)):
        clean = clean_values(modules, logits, pixels, rows)
        leaves = {i: scaled_neurons(clean[i], chosen, points).requires_grad_() for i, chosen in enumerate(path)}
        own = clean[layer].repeat(len(points), 1, 1)
        leaves[layer] = (own * points.view(-1, 1, 1) if whole_layer else own).requires_grad_()
        g = gradients(leaves)
        before_g = [g[i][:, c] for i, c in enumerate(path)]
        before_v = [clean[i][0][:, c] for i, c in enumerate(path)]
        mine, values = g[layer], clean[layer][0]
        if cls:
            scores = (mine[0] + sum(x.sum() for x in before_g)) * (values[0] + sum(x.sum() for x in before_v))
        else:
            scores = (mine * values).sum(0) + (neuron_product(before_g, before_v, cls) if path else 0.0)
        paths.append(scores)
        path.append([int(scores.argmax())] if top_k == 1 else scores.topk(top_k).indices.tolist())
    clean = clean_values(modules, logits, pixels, rows)
    leaves = {i: scaled_neurons(clean[i], chosen, points).requires_grad_() for i, chosen in enumerate(path)}
    g = gradients(leaves)
    joint = neuron_product([g[i][:, c] for i, c in enumerate(path)], [clean[i][0][:, c] for i, c in enumerate(path)], cls)
    none = {i: scaled_neurons(clean[i], chosen, points.new_zeros(1)) for i, chosen in enumerate(path)}
    one = torch.tensor([target])
    with torch.no_grad():
        full = objective(logits(pixels), one)
        with with_inputs(modules, none, rows):
            less = objective(logits(pixels), one)
    return path, paths, float(joint), float(full - less)
