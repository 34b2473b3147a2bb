"""Neuron paths: for every layer of a vision transformer the neuron that, together with those of the layers before, decides the output.

Wang et al., "Discovering Influential Neuron Path in Vision Transformers", ICLR 2025. With w the clean values and z(a) the state in which
path neurons are held at a w and the other neurons of their layers at w, the joint attribution score of a path P is

    JAS(P) = (sum_P w) * integral_0^1 sum_P dF/dw(z(a)) da        (eq. 2)

a product of two sums, and not what taking P away does: that is its additive part, F(clean) - F(P at zero, the others held), which is always
given beside it. In a classifier that reads the mean over patches a neuron is a channel at all patches, scaled as one, and its score is the
additive one.

The locating goes layer by layer. State and tangent of the layers that are done are carried forward (:mod:`.path_prefix`), so that only the
layers that follow are ever differentiated: sum_P dF/dw = <dF/dH, tangent>. Results are those of the published algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.neuron_vit import CLS, NeuronVit
from ..core.trainer import Progress
from .path_prefix import PathPrefix
from .path_settings import PAPER, SHORTLIST, PathSettings, objective


@dataclass(frozen=True)
class FoundPaths:
    """Paths of images, with their scores."""

    path: Tensor
    """int64 [B, L, K], best first."""
    joint: Tensor
    """Joint score [B]."""
    additive: Tensor
    """Additive part [B]."""
    objective: Tensor
    """F of the clean image [B]."""
    activation: Tensor
    """Clean values [B, L, K]; of a channel, the mean over patches."""
    scores: Tensor | None = None
    """[B, L, D] of every candidate, if they were asked for; None under "shortlist", which scores few."""


def find_paths(
    net: NeuronVit,
    pixels: Tensor,
    targets: Tensor,
    settings: PathSettings | None = None,
    progress: Progress | None = None,
    keep_scores: bool = False,
) -> FoundPaths:
    """Search the paths of images, for one class each.

    pixels [B, 3, H, W]: preprocessed; targets int64 [B]: positions in the head. ``progress(layer, layers, {})`` may raise, which
    interrupts. Raises ValueError for settings that there are not, no images, or another number of targets.
    """
    s = (settings or PathSettings()).checked(net.neurons)
    _check(net, pixels, targets)
    with torch.inference_mode(False), torch.no_grad():
        targets = targets.to(net.device)
        prefix = PathPrefix(net, net.embed(_plain(pixels, net)), s.nodes)
        layers = []
        for layer in range(net.depth):
            x, t = prefix.clean_layer()
            if s.search == SHORTLIST:
                chosen = _of_shortlist(prefix, x, t, targets, s)
            else:
                scores = candidate_scores(prefix, x, t, targets, s, whole_layer=s.search == PAPER)
                if keep_scores:
                    layers.append(scores)
                chosen = _best(scores, s)
            prefix.extend(x, t, chosen)
            if progress:
                progress(layer + 1, net.depth, {})
        return _finished(prefix, targets, s, torch.stack(layers, 1) if layers else None)


def score_paths(net: NeuronVit, pixels: Tensor, targets: Tensor, path: Tensor, settings: PathSettings | None = None) -> FoundPaths:
    """Compute the figures of :func:`find_paths` for given paths [B, L, K]."""
    s = settings or PathSettings()
    _check(net, pixels, targets)
    if tuple(path.shape[:2]) != (len(pixels), net.depth) or path.amin() < 0 or path.amax() >= net.neurons:
        raise ValueError(
            f"a path of this model has {net.depth} layers of neurons 0 to {net.neurons - 1} for each of {len(pixels)} image(s), and this "
            f"one has the shape {list(path.shape)}: use one that was found in the same model."
        )
    with torch.inference_mode(False), torch.no_grad():
        prefix = PathPrefix(net, net.embed(_plain(pixels, net)), s.nodes)
        for layer in range(net.depth):
            prefix.extend(*prefix.clean_layer(), path[:, layer].to(net.device))
        return _finished(prefix, targets.to(net.device), s, None)


def candidate_scores(prefix: PathPrefix, x: Tensor, t: Tensor, targets: Tensor, s: PathSettings, whole_layer: bool) -> Tensor:
    """Score all neurons of the layer from one gradient: [B, D].

    The gradient is at a point that all share: the layer as it is, or scaled as a whole (the published code's choice). Neither is the score
    of a single candidate.
    """
    net, values = prefix.net, prefix.values
    if whole_layer:
        x = x.expand(len(prefix.points), *x.shape[1:]).clone()
        x[:, :, net.neuron_tokens] += (prefix.points - 1).view(-1, 1, 1, 1) * (values @ net.written_by(prefix.layer).T)
    g = suffix_gradient(net, prefix.layer + 1, x, targets, s, prefix.weights)
    moved = _along(g, t)
    if net.rows == CLS:
        own = g[:, :, 0].sum(0) @ net.written_by(prefix.layer)
        return (own + moved[:, None]) * (values[:, 0] + prefix.total[:, None])
    return ((g[:, :, 1:].sum(0) @ net.written_by(prefix.layer)) * values).sum(1) + moved[:, None]


def exact_scores(prefix: PathPrefix, x: Tensor, t: Tensor, candidates: Tensor, targets: Tensor, s: PathSettings) -> Tensor:
    """Score the path with each candidate added alone: [B, C].

    JAS; candidates [B, C].
    """
    net, parts = prefix.net, []
    for c in candidates.split(1, dim=1):
        g = suffix_gradient(net, prefix.layer + 1, prefix.with_neurons(x, c), targets, s, prefix.weights)
        moved = _along(g, t) + torch.einsum("abrd,brd->b", g[:, :, net.neuron_tokens], prefix.direction(c))
        value = prefix.values[:, 0].gather(1, c)[:, 0] if net.rows == CLS else 0.0
        parts.append(moved * (prefix.total + value))
    return torch.stack(parts, 1)


def suffix_gradient(net: NeuronVit, start: int, x: Tensor, targets: Tensor, s: PathSettings, weights: Tensor) -> Tensor:
    """Compute the gradient of F by the token states before a layer.

    x [A, B, N, d] before layer ``start``; each point's gradient is multiplied by its weight. If all points coincide, A is 1 and the weight
    is their sum. Done in chunks of rows, as the memory allows.
    """
    rows, n = x.flatten(0, 1), len(x)
    each = (weights if n == len(weights) else weights.sum(0, keepdim=True)).repeat_interleave(x.shape[1])
    wanted = targets.repeat(n)
    f, size = objective(s.objective), chunk_rows(net, start, s.memory_mb)
    out = torch.zeros_like(rows)
    used = each.nonzero().flatten()
    for part in used.split(size):
        leaf = rows[part].detach().requires_grad_()
        with torch.enable_grad():
            total = (f(net.run(start, leaf), wanted[part]) * each[part]).sum()
        (out[part],) = torch.autograd.grad(total, leaf)
    return out.view(x.shape)


def chunk_rows(net: NeuronVit, start: int, memory_mb: int) -> int:
    """Return how many rows fit into the memory, at least one.

    With the activations of the layers from ``start`` on.
    """
    per_layer = net.tokens * (9 * net.width + 3 * net.neurons)
    return max(1, int(memory_mb * 2**20 // (per_layer * max(1, net.depth - start) * net.weights["cls"].element_size())))


def _of_shortlist(prefix: PathPrefix, x: Tensor, t: Tensor, targets: Tensor, s: PathSettings) -> Tensor:
    count = max(s.top_k, min(s.shortlist, prefix.net.neurons))
    both = []
    for whole_layer in (False, True):
        scores = candidate_scores(prefix, x, t, targets, s, whole_layer)
        both.append((scores.mean(0, keepdim=True).expand_as(scores) if s.shared else scores).topk(count, dim=1).indices)
    candidates = torch.cat(both, 1)
    scores = exact_scores(prefix, x, t, candidates, targets, s)
    if s.shared:
        scores = scores.mean(0, keepdim=True).expand_as(scores)
    # A neuron that is on both lists counts once.
    order = candidates.sort(dim=1, stable=True)
    twice = torch.zeros_like(candidates, dtype=torch.bool).scatter(1, order.indices[:, 1:], order.values[:, 1:] == order.values[:, :-1])
    return candidates.gather(1, scores.masked_fill(twice, -torch.inf).topk(s.top_k, dim=1).indices)


def _best(scores: Tensor, s: PathSettings) -> Tensor:
    if s.shared:
        scores = scores.mean(0, keepdim=True).expand_as(scores)
    # argmax takes the first of equals, as the published code does; topk any.
    return scores.argmax(1, keepdim=True) if s.top_k == 1 else scores.topk(s.top_k, dim=1).indices


def _finished(prefix: PathPrefix, targets: Tensor, s: PathSettings, scores: Tensor | None) -> FoundPaths:
    net, f = prefix.net, objective(s.objective)
    g = suffix_gradient(net, net.depth, prefix.state, targets, s, prefix.weights)
    joint = _along(g, prefix.tangent) * prefix.total
    clean = f(prefix.clean_logits, targets)
    zeroed = f(net.logits(prefix.state[prefix.zero]), targets)
    return FoundPaths(torch.stack(prefix.picked, 1), joint, clean - zeroed, clean, prefix.activation(), scores)


def _along(g: Tensor, tangent: Tensor) -> Tensor:
    """Compute <g, tangent> of every image, [B]."""
    return (g * tangent).sum((0, 2, 3)) if len(g) == len(tangent) else torch.einsum("abnd,cbnd->b", g, tangent)


def _check(net: NeuronVit, pixels: Tensor, targets: Tensor) -> None:
    if not len(pixels):
        raise ValueError("there are no images to find a path of: connect at least one.")
    if targets.shape != (len(pixels),):
        raise ValueError(f"{len(pixels)} image(s) need as many targets and met {list(targets.shape)}: give one class for each.")
    if int(targets.min()) < 0 or int(targets.max()) >= len(net.labels):
        raise ValueError(
            f"the head '{net.name}' has the classes 0 to {len(net.labels) - 1} and met {int(targets.max())}: choose one of its."
        )


def _plain(pixels: Tensor, net: NeuronVit) -> Tensor:
    """Copy pixels to the weights' device, as a tensor that takes gradients.

    Also where the host is in inference mode.
    """
    return pixels.to(net.device, net.dtype).clone()
