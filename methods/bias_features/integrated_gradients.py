"""Integrated gradients of an attribute's class probability with respect to an autoencoder's features.

Sundararajan et al. 2017: IG_i = (z_i - z'_i) * integral over a in 0..1 of dF_k(z' + a (z - z')) / dz_i, with F_k(z) the probability of
class k that a reader gives the reconstruction decode(z), as in DiffLens (Shi et al., CVPR 2025). Their sum over features is F(z) - F(z')
(completeness).

For a linear reader no gradient is needed: logits move on a straight line along the path, so that IG_i = dz_i * sum_j A_ji * c_kj, where A
is the reader seen through the decoder and c_kj = integral of p_k (delta_kj - p_j) depends on the K logits alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.sae import SparseAutoencoder
from ...models.sites import GRID
from .linear_readout import CELLS, affine_logits, affine_maps, check_reader, is_affine, pooled_codes, scale_at
from .softmax_path import path_weights

AUTO, CLOSED, AUTOGRAD, READER = "auto", "closed-form", "autograd", "reader-autograd"
METHODS = (AUTO, CLOSED, AUTOGRAD, READER)
ZERO = "zero"
RULES = ("gauss", "midpoint", "left")
POINTS = 32
LEVELS_AT_ONCE = 32


def integrated_gradients(
    sae: SparseAutoencoder,
    reader: AttributePredictor,
    attribute: str,
    h: Tensor,
    level: Tensor,
    baseline: str | Tensor = ZERO,
    points: int = POINTS,
    method: str = AUTO,
    target: Tensor | None = None,
    features: Tensor | None = None,
) -> Tensor:
    """Attribution of every class's probability to every feature and cell, for h [N, C, H, W] at log-SNR [N]: float32 [N, K, F, 4, 4].

    baseline: "zero", or activations [m, 4, 4] or [N, m, 4, 4]. target: int64 [N], a class for each image: [N, F, 4, 4] for it alone.
    features: int64 [F], None for all latents. method: see :func:`code_gradients`. All of it is in memory, so N is to be small for wide
    autoencoders; :mod:`.attribution` streams sums. Raises ValueError for an unknown attribute, a reader of another width, a method that
    does not fit the reader, or a baseline of another shape.
    """
    z = pooled_codes(sae, h, level)
    return code_gradients(sae, reader, attribute, z, level, baseline_codes(z, baseline), points, method, target, features)


def baseline_codes(z: Tensor, baseline: str | Tensor) -> Tensor:
    """A baseline for codes [N, m, 4, 4], of their shape. Raises ValueError where it cannot be one."""
    if isinstance(baseline, str):
        if baseline != ZERO:
            raise ValueError(f"a baseline is '{ZERO}' or a tensor of activations, not '{baseline}'.")
        return z.new_zeros(()).expand_as(z)
    if tuple(baseline.shape) not in (tuple(z.shape), tuple(z.shape[1:])):
        raise ValueError(
            f"a baseline has the shape of one image's activations, {list(z.shape[1:])}, or of all, {list(z.shape)}; met "
            f"{list(baseline.shape)}."
        )
    return baseline.to(z).expand_as(z)


def code_gradients(
    sae: SparseAutoencoder,
    reader: AttributePredictor,
    attribute: str,
    z: Tensor,
    level: Tensor,
    baseline: Tensor,
    points: int = POINTS,
    method: str = AUTO,
    target: Tensor | None = None,
    features: Tensor | None = None,
    rule: str = "gauss",
) -> Tensor:
    """:func:`integrated_gradients` from activations z and baseline, both [N, m, 4, 4].

    method: "closed-form" (linear readers; ``points`` does not matter), "reader-autograd" (any reader: its gradients at ``points`` points of
    the path, then the decoder), "autograd" (the plain rule, through decoder and reader at every point, for comparison), or "auto" (the
    first that fits). rule: where the points are, "gauss" (Gauss-Legendre), "midpoint" or "left" (the paper's).
    """
    check_reader(sae, reader, attribute)
    if method not in METHODS:
        raise ValueError(f"a method of attribution is {', '.join(METHODS)}, not '{method}'.")
    if method == CLOSED and not is_affine(reader):
        raise ValueError(f"the closed form needs a linear reader, and this one is of kind '{reader.kind}': use '{READER}'.")
    if method == AUTO:
        method = CLOSED if is_affine(reader) else READER
    shape = (*z.shape[:2], GRID, GRID)
    if tuple(z.shape) != shape or len(level) != len(z):
        raise ValueError(f"activations are averages on the grid, [N, m, 4, 4], with N noise levels; met {list(z.shape)} and {len(level)}.")
    if method == CLOSED:
        out = _closed(sae, reader, attribute, z, level, baseline, target, features)
    elif method == READER:
        out = _by_reader(sae, reader, attribute, z, level, baseline, points, rule, target, features)
    else:
        out = _through_decoder(sae, reader, attribute, z, level, baseline, points, rule, target)
        out = out if features is None else out.index_select(-2, features)
    return out.unflatten(-1, (GRID, GRID))


def places(points: int, rule: str) -> tuple[Sequence[float], Sequence[float]]:
    """Points in 0..1 and their weights. Raises ValueError for an unknown rule or no points."""
    if rule not in RULES or points < 1:
        raise ValueError(f"a path is integrated at 1 point or more, by the rule {', '.join(RULES)}; met {points} and '{rule}'.")
    if rule == "gauss":
        x, w = np.polynomial.legendre.leggauss(points)
        return ((x + 1) / 2).tolist(), (w / 2).tolist()
    shift = 0.5 if rule == "midpoint" else 0.0
    return [(i + shift) / points for i in range(points)], [1 / points] * points


def _closed(
    sae: SparseAutoencoder,
    reader: AttributePredictor,
    attribute: str,
    z: Tensor,
    level: Tensor,
    baseline: Tensor,
    target: Tensor | None,
    features: Tensor | None,
) -> Tensor:
    if not any(baseline.stride()) and not baseline.flatten()[:1].any():  # "zero", as baseline_codes makes it
        out = _closed_sparse(sae, reader, attribute, z.flatten(1), level, target)
        return out if features is None else out.index_select(-2, features)
    k = len(reader.attributes[attribute])
    columns = z.shape[1] if features is None else len(features)
    out = z.new_empty(*((len(z),) if target is not None else (len(z), k)), columns, CELLS)
    for at in level.unique().tolist():
        rows = (level == at).nonzero().flatten()
        a, b = affine_logits(sae, reader, attribute, at)
        start = baseline[rows].flatten(1) @ a.flatten(1).T + b
        dz = (z[rows] - baseline[rows]).flatten(2)
        c = path_weights(start, dz.flatten(1) @ a.flatten(1).T).to(z)
        if features is not None:
            dz, a = dz[:, features], a[:, features]
        if target is not None:
            c = c[torch.arange(len(rows)), target[rows]]
        out[rows] = (c @ a.flatten(1)).unflatten(-1, (columns, CELLS)).mul_(dz if target is not None else dz[:, None])
    return out


def _closed_sparse(
    sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, z: Tensor, level: Tensor, target: Tensor | None
) -> Tensor:
    """From a baseline of nothing: only what is active, a few percent of z [N, m * 16], is looked at."""
    n, width = z.shape
    at = z.flatten().nonzero().flatten()
    row = at // width
    place = at - row * width
    found = active_gradients(sae, reader, attribute, row, place, z.flatten().index_select(0, at), level, target)
    if target is not None:
        return z.new_zeros(n * width).index_copy_(0, at, found).view(n, -1, CELLS)
    out = z.new_zeros(n, found.shape[1], width)
    out.transpose(1, 2)[row, place] = found
    return out.unflatten(-1, (-1, CELLS))


def active_gradients(
    sae: SparseAutoencoder,
    reader: AttributePredictor,
    attribute: str,
    row: Tensor,
    place: Tensor,
    active: Tensor,
    level: Tensor,
    target: Tensor | None = None,
) -> Tensor:
    """The closed form from a baseline of nothing, for activations that are not 0: float32 [I, K], or [I] of one class per image.

    row, place int64 [I]: the image and the latent times 16 plus the cell of activations ``active`` [I]; what is not there has attribution
    0. level [N], target int64 [N]. Memory: K m 16 floats for up to 32 noise levels at a time.
    """
    k, width = len(reader.attributes[attribute]), sae.latents * CELLS
    out = active.new_zeros(len(active)) if target is not None else active.new_zeros(len(active), k)
    levels, which = level.unique(return_inverse=True)
    for group in range(0, len(levels), LEVELS_AT_ONCE):
        maps, b = affine_maps(sae, reader, attribute, levels[group : group + LEVELS_AT_ONCE])
        of = which.index_select(0, row) - group
        mine = None if len(levels) <= LEVELS_AT_ONCE else ((of >= 0) & (of < LEVELS_AT_ONCE)).nonzero().flatten()
        r, p, x, t = (row, place, active, of) if mine is None else (v[mine] for v in (row, place, active, of))
        a = maps.view(-1, k).index_select(0, t * width + p)
        change = active.new_zeros(len(level), k).index_add_(0, r, x[:, None] * a)
        c = path_weights(b[(which - group).clamp(0, len(b) - 1)], change).to(active)
        if target is not None:
            carried = (a * c[torch.arange(len(c)), target].index_select(0, r)).sum(1).mul_(x)
        else:
            carried = x[:, None] * torch.einsum("ikj,ij->ik", c.index_select(0, r), a)
        out = carried if mine is None else out.index_copy_(0, mine, carried)
    return out


@torch.enable_grad()
def _by_reader(
    sae: SparseAutoencoder,
    reader: AttributePredictor,
    attribute: str,
    z: Tensor,
    level: Tensor,
    baseline: Tensor,
    points: int,
    rule: str,
    target: Tensor | None,
    features: Tensor | None,
) -> Tensor:
    """The path is straight in the reader's input too, so the reader's gradients are averaged there and taken through the decoder once."""
    with torch.no_grad():
        start, change = sae.decode(baseline, level), sae.delta(z - baseline, level)
    total: Tensor | None = None
    for place, weight in zip(*places(points, rule), strict=True):
        x = (start + place * change).requires_grad_(True)
        grad = _probability_gradients(reader(x, level)[attribute].softmax(-1), x, target)
        total = weight * grad if total is None else total.add_(grad, alpha=weight)
    atoms = sae.decoder.float() if features is None else sae.decoder[features].float()
    dz = (z - baseline if features is None else (z - baseline)[:, features]).flatten(2)
    scale = scale_at(sae, level)
    scaled = total.flatten(-2) * scale.view(-1, *[1] * (total.ndim - 2))
    return (atoms.detach() @ scaled).mul_(dz if target is not None else dz[:, None])


@torch.enable_grad()
def _through_decoder(
    sae: SparseAutoencoder,
    reader: AttributePredictor,
    attribute: str,
    z: Tensor,
    level: Tensor,
    baseline: Tensor,
    points: int,
    rule: str,
    target: Tensor | None,
) -> Tensor:
    dz, total = z - baseline, None
    for place, weight in zip(*places(points, rule), strict=True):
        at = (baseline + place * dz).detach().requires_grad_(True)
        grad = _probability_gradients(reader(sae.decode(at, level), level)[attribute].softmax(-1), at, target)
        total = weight * grad if total is None else total.add_(grad, alpha=weight)
    return (total * (dz if target is not None else dz[:, None])).flatten(-2)


def _probability_gradients(p: Tensor, x: Tensor, target: Tensor | None) -> Tensor:
    """Gradients of p [N, K] with respect to x [N, ...]: [N, K, ...], or [N, ...] of the target's."""
    if target is not None:
        return torch.autograd.grad(p.gather(1, target[:, None]).sum(), x)[0]
    whole = [torch.autograd.grad(p[:, k].sum(), x, retain_graph=k + 1 < p.shape[1])[0] for k in range(p.shape[1])]
    return torch.stack(whole, 1)
