"""Paths that are chosen layer by layer without regard to each other: what neuron paths are compared with.

Activation and the influence pattern (Lu et al., 2021) are the paper's own baselines; knowledge neurons (Dai et al., 2022) and gradient by
activation, which it has no row for, find neurons whose removal does a little more than that of neuron paths, at lower joint
scores (64 samples, shipped labeller, eyeglasses: -0.055 against -0.051 to -0.054, and 0.14 against 0.16).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.neuron_vit import CLS, NeuronVit, clean_pass
from ..core.trainer import Progress
from .path_prefix import PathPrefix
from .path_settings import PathSettings, objective
from .search import candidate_scores, chunk_rows

ACTIVATION, INFLUENCE, KNOWLEDGE, GRADIENT, RANDOM = "activation", "influence", "knowledge-neurons", "gradient-activation", "random"
BASELINES = (ACTIVATION, INFLUENCE, KNOWLEDGE, GRADIENT, RANDOM)
INPUT_POINTS = 20


def baseline_path(
    net: NeuronVit,
    pixels: Tensor,
    targets: Tensor,
    kind: str,
    settings: PathSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Find a path of every image by one of ``BASELINES``: int64 [B, L, K].

    With ``shared``, one path for all images by the mean of their scores.

    Raises ValueError for a kind that there is not, and for what a search for paths would refuse.
    """
    s = (settings or PathSettings()).checked(net.neurons)
    if kind not in BASELINES:
        raise ValueError(f"baselines are {', '.join(BASELINES)}, not '{kind}': choose one of them.")
    if kind == RANDOM:
        generator = torch.Generator().manual_seed(seed)
        count = 1 if s.shared else len(pixels)
        drawn = torch.rand(count, net.depth, net.neurons, generator=generator)
        scores = drawn.expand(len(pixels), -1, -1)
    else:
        with torch.inference_mode(False), torch.no_grad():
            inputs = pixels.to(net.device, net.dtype).clone(), targets.to(net.device)
            scores = SCORES[kind](net, *inputs, s, progress)
            if s.shared:
                scores = scores.mean(0, keepdim=True).expand_as(scores)
    return scores.argmax(2, keepdim=True) if s.top_k == 1 else scores.topk(s.top_k, dim=2).indices


def _activation(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, progress: Progress | None) -> Tensor:
    hidden, _ = clean_pass(net, net.embed(pixels))
    return torch.stack([h.sum(1) for h in hidden], 1)


def _knowledge(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, progress: Progress | None) -> Tensor:
    """Compute the integrated gradient of each neuron in an empty path.

    Its layer alone is scaled.
    """
    prefix = PathPrefix(net, net.embed(pixels), s.nodes)
    if net.rows == CLS:
        prefix.total = torch.zeros_like(prefix.total)
    layers = []
    for layer in range(net.depth):
        x, t = prefix.clean_layer()
        layers.append(candidate_scores(prefix, x, t, targets, s, whole_layer=True))
        prefix.state, prefix.layer = x, layer + 1
        if progress:
            progress(layer + 1, net.depth, {})
    return torch.stack(layers, 1)


def _influence(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, progress: Progress | None) -> Tensor:
    """Average the gradient over inputs k/20 of the image.

    It is not multiplied by the activation, as published.
    """
    total = None
    for k in range(INPUT_POINTS):
        gradients, _ = total_gradients(net, pixels * (k / INPUT_POINTS), targets, s)
        summed = torch.stack([g.sum(1) for g in gradients], 1)
        total = summed if total is None else total + summed
        if progress:
            progress(k + 1, INPUT_POINTS, {})
    return total / INPUT_POINTS


def _gradient(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings, progress: Progress | None) -> Tensor:
    gradients, values = total_gradients(net, pixels, targets, s)
    return torch.stack([(g * v).sum(1) for g, v in zip(gradients, values, strict=True)], 1)


SCORES = {ACTIVATION: _activation, INFLUENCE: _influence, KNOWLEDGE: _knowledge, GRADIENT: _gradient}


def total_gradients(net: NeuronVit, pixels: Tensor, targets: Tensor, s: PathSettings) -> tuple[list[Tensor], list[Tensor]]:
    """Compute the gradient of F by every neuron's clean value.

    All layers that follow answer. Returns gradients and values: L times [B, R, D].

    One pass forward and one back, in chunks of images as the memory allows.
    """
    f, parts = objective(s.objective), []
    for index in torch.arange(len(pixels)).split(chunk_rows(net, 0, s.memory_mb)):
        leaves: list[Tensor] = []
        values: list[Tensor] = []

        def watch(layer: int, hidden: Tensor, leaves: list[Tensor] = leaves, values: list[Tensor] = values) -> Tensor:
            values.append(hidden.detach())
            leaves.append(torch.zeros_like(hidden, requires_grad=True))
            return hidden + leaves[-1]

        with torch.enable_grad():
            total = f(net.run(0, net.embed(pixels[index]), watch), targets[index]).sum()
        parts.append((torch.autograd.grad(total, leaves), values))
    gradients, values = zip(*parts, strict=True)
    return [torch.cat(g) for g in zip(*gradients, strict=True)], [torch.cat(v) for v in zip(*values, strict=True)]


def contributions(net: NeuronVit, pixels: Tensor, targets: Tensor, path: Tensor, settings: PathSettings | None = None) -> Tensor:
    """Compute what each neuron of paths adds to the additive part: [B, L, K].

    They sum to it, because integrated gradients are complete.
    """
    s = settings or PathSettings()
    f, parts, size = objective(s.objective), [], chunk_rows(net, 0, s.memory_mb)
    with torch.inference_mode(False), torch.no_grad():
        for index in torch.arange(len(pixels)).split(max(1, size // 4)):
            inputs = pixels[index].to(net.device, net.dtype).clone()
            x, wanted, chosen = net.embed(inputs), targets[index].to(net.device), path[index].to(net.device)
            prefix = PathPrefix(net, x, s.nodes)
            used = prefix.weights.nonzero().flatten()
            indices = [chosen[:, layer][:, None].expand(-1, clean.shape[1], -1) for layer, clean in enumerate(prefix.clean)]
            own = [clean.gather(2, at) for clean, at in zip(prefix.clean, indices, strict=True)]
            total = [torch.zeros_like(values) for values in own]
            for some in used.split(max(1, size // len(index))):
                points, leaves = prefix.points[some], []

                def hold(
                    layer: int,
                    _: Tensor,
                    clean: list[Tensor] = prefix.clean,
                    points: Tensor = points,
                    leaves: list[Tensor] = leaves,
                    own: list[Tensor] = own,
                    indices: list[Tensor] = indices,
                ) -> Tensor:
                    leaves.append((points.view(-1, 1, 1, 1) * own[layer]).requires_grad_())
                    n = len(points)
                    return clean[layer].repeat(n, 1, 1).scatter(2, indices[layer].repeat(n, 1, 1), leaves[layer].flatten(0, 1))

                with torch.enable_grad():
                    out = f(net.run(0, x.repeat(len(points), 1, 1), hold), wanted.repeat(len(points))).view(len(points), -1)
                    weighted = (out * prefix.weights[some, None]).sum()
                for layer, g in enumerate(torch.autograd.grad(weighted, leaves)):
                    total[layer] += g.sum(0)
            parts.append(torch.stack([(g * values).sum(1) for g, values in zip(total, own, strict=True)], 1))
    return torch.cat(parts)
