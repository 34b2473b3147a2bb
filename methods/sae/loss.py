"""Compute the loss of a sparse autoencoder and its gradients along the active latents alone.

Of 1,024 latents 16 are active: gradients of the others are zero, and a backward pass through dense activations would spend its time on
them. The sums below are those that autograd makes (the tests compare them).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from ...models.sae import BATCH_TOPK, SparseAutoencoder
from ...models.topk import top_k


@dataclass(frozen=True)
class Active:
    """Hold the active latents of N tokens, one token after another."""

    values: Tensor
    """Activations [M]."""
    latents: Tensor
    """Their latents, int64 [M]."""
    offsets: Tensor
    """First entry of every token, and the end, int64 [N + 1]."""


@dataclass(frozen=True)
class Step:
    """Hold the figures of one step."""

    loss: Tensor
    """Mean squared error per channel; the unexplained share of the variance, as tokens are normalised."""
    auxiliary: Tensor | None
    """Mean square of what dead latents leave of that error; None without dead latents."""
    fired: Tensor
    """Whether each latent fired, bool [m]."""
    smallest: Tensor
    """Smallest activation above 0."""
    active: Tensor
    """Number of activations above 0, per token."""


@torch.no_grad()
def choose(sae: SparseAutoencoder, before: Tensor) -> Active:
    """Choose the largest values of ``before`` [N, m]; none below 0.

    k of every row, or N * k of all rows together.
    """
    n, m = before.shape
    if sae.activation == BATCH_TOPK:
        values, positions = before.flatten().topk(n * sae.k, sorted=False)
        positions, order = positions.sort()
        offsets = torch.searchsorted(positions, torch.arange(n + 1, device=positions.device) * m)
        return Active(values[order].relu(), positions % m, offsets)
    values, latents = top_k(before, sae.k)
    return Active(values.relu().flatten(), latents.flatten(), torch.arange(0, n * sae.k + 1, sae.k, device=before.device))


@torch.no_grad()
def add_gradients(sae: SparseAutoencoder, x: Tensor, dead: Tensor | None = None, weight: float = 1 / 32, k_aux: int = 256) -> Step:
    """Set the gradients of the loss on tokens x [N, C] (normalised).

    dead: int64 [D], latents that have not fired for long. They are asked for the error that the others leave (AuxK, Gao et al. 2024, A.2):
    the ``k_aux`` largest of them per token, with this weight in the loss, in the same units as the error itself; the pre-bias is not moved
    by that part.
    """
    n, channels = x.shape
    encoder, decoder = sae.encoder, sae.decoder
    centred = x - sae.bias
    before = F.linear(centred, encoder, sae.encoder_bias)
    active = choose(sae, before)
    out = F.embedding_bag(active.latents, decoder, active.offsets[:-1], mode="sum", per_sample_weights=active.values)
    error = out - centred
    loss = error.pow(2).mean()
    upstream = error * (2 / error.numel())
    on = active.values > 0
    slope = _products(upstream, decoder, active) * on
    order, tokens, starts = by_latent(active, sae.latents)
    sae.decoder.grad = F.embedding_bag(tokens, upstream, starts, mode="sum", per_sample_weights=active.values[order])
    sae.encoder.grad = F.embedding_bag(tokens, centred, starts, mode="sum", per_sample_weights=slope[order])
    sae.encoder_bias.grad = torch.zeros_like(sae.encoder_bias).index_add_(0, active.latents, slope)
    sae.bias.grad = upstream.sum(0) - sae.encoder_bias.grad @ encoder
    auxiliary = None
    if dead is not None and len(dead):
        auxiliary = _add_auxiliary(sae, centred, -error, dead, weight, k_aux)
    fired = torch.zeros_like(sae.encoder_bias).index_add_(0, active.latents, on.float()) > 0
    smallest = torch.where(on, active.values, torch.inf).min()
    return Step(loss, auxiliary, fired, smallest.where(smallest.isfinite(), 0.0), on.sum() / n)


def by_latent(active: Active, latents: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort active latents by latent, as int64 on their device.

    Returns positions in ``active`` [M], the tokens that they belong to [M], and where each latent begins [m].
    """
    n = len(active.offsets) - 1
    if active.latents.device.type == "cpu":  # a matrix by columns, which is counted instead of sorted
        positions = np.arange(len(active.latents))
        by_token = csr_array((positions, active.latents.numpy(), active.offsets.numpy()), shape=(n, latents))
        columns = by_token.tocsc()
        return tuple(torch.from_numpy(a).long() for a in (columns.data, columns.indices, columns.indptr[:-1]))
    order = active.latents.argsort(stable=True)
    counts = torch.bincount(active.latents, minlength=latents)
    tokens = torch.repeat_interleave(torch.arange(n, device=order.device), active.offsets.diff())[order]
    return order, tokens, counts.cumsum(0) - counts


def _products(y: Tensor, decoder: Tensor, active: Active) -> Tensor:
    """Compute <y of the token, atom of the latent> for every active latent: [M]."""
    if y.device.type == "cuda" or (y.device.type == "cpu" and torch.backends.mkl.is_available()):
        shape = (len(y), len(decoder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # such tensors are "in beta state"
            zeros = torch.zeros_like(active.values)
            pattern = torch.sparse_csr_tensor(active.offsets, active.latents, zeros, shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, y, decoder.detach().T, beta=0.0).values()
    tokens = torch.repeat_interleave(torch.arange(len(y), device=y.device), active.offsets.diff())
    return (y @ decoder.T)[tokens, active.latents]


def _add_auxiliary(sae: SparseAutoencoder, centred: Tensor, error: Tensor, dead: Tensor, weight: float, k_aux: int) -> Tensor:
    # Again, and not columns of what was computed for all: single columns lie far apart in memory, and cost more.
    z = F.linear(centred, sae.encoder[dead], sae.encoder_bias[dead]).relu()
    if len(dead) > k_aux:
        smallest = top_k(z, k_aux)[0].amin(1, keepdim=True)
        z = z * (z >= smallest)
    atoms = sae.decoder[dead]
    left = z @ atoms - error
    weight *= min(1.0, len(dead) / k_aux)  # a few dead latents cannot explain much, and are not pushed to
    upstream = left * (2 * weight / left.numel())
    slope = (upstream @ atoms.T) * (z > 0)
    sae.decoder.grad.index_add_(0, dead, z.T @ upstream)
    sae.encoder.grad.index_add_(0, dead, slope.T @ centred)
    sae.encoder_bias.grad.index_add_(0, dead, slope.sum(0))
    return left.pow(2).mean()
