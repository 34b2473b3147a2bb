"""A linear reader seen through an autoencoder's decoder: class logits as an affine function of the activations, exactly, at every level."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.noise_level import at_level, interpolation
from ...models.sae import CHUNK, TOPK, SparseAutoencoder
from ...models.sites import GRID, pool

CELLS = GRID * GRID


def pooled_codes(sae: SparseAutoencoder, h: Tensor, level: Tensor) -> Tensor:
    """Encode h and average the activations to the grid: float32 [N, m, 4, 4].

    h [N, C, H, W] at log-SNR [N].

    The decoder is affine position by position, so what a reader sees of a reconstruction is the reconstruction of these averages, and the
    attribution to a feature at a cell is the sum over the positions in it.
    """
    n, _, height, width = h.shape
    if sae.activation != TOPK or height % GRID or width % GRID:
        return pool(sae.encode(h, level))
    # The few active latents of every position go straight to their cells: whole maps of all latents would be far larger.
    x = sae.normalise(h, level).movedim(1, -1).flatten(0, 2)
    rows = torch.arange(height, device=x.device) * GRID // height
    columns = torch.arange(width, device=x.device) * GRID // width
    cell = (rows[:, None] * GRID + columns[None]).flatten().repeat(n)
    start = torch.arange(n, device=x.device).repeat_interleave(height * width) * sae.latents
    out = x.new_zeros(n * sae.latents * CELLS)
    share = CELLS / (height * width)
    size = max(1, CHUNK // sae.latents)
    for part in range(0, len(x), size):
        tokens = slice(part, part + size)
        values, chosen = sae.encode_tokens(x[tokens])
        index = (start[tokens, None] + chosen) * CELLS + cell[tokens, None]
        out.index_add_(0, index.flatten(), values.flatten() * share)
    return out.view(n, sae.latents, GRID, GRID)


def is_affine(reader: AttributePredictor) -> bool:
    """Return whether a reader is affine at a given noise level."""
    return reader.kind == "linear"


def check_reader(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str) -> None:
    """Raise ValueError unless a reader reads an attribute at the autoencoder's width."""
    if attribute not in reader.attributes:
        raise ValueError(f"the reader does not read '{attribute}'; it reads: {', '.join(reader.attributes)}.")
    if reader.channels != sae.channels:
        raise ValueError(
            f"the reader reads features of {reader.channels} channels and the autoencoder's have {sae.channels}: it was trained at another "
            "site or on another model, so give one that was trained where the autoencoder was."
        )


def affine_logits(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, level: float) -> tuple[Tensor, Tensor]:
    """Return the affine map from averaged activations to an attribute's logits.

    A float32 [K, m, 16] and b [K], so that the logits of decode(z) are A z + b; z [m, 16] are averages on the grid.

    All that lies between is affine at a given log-SNR: the reader interpolates two affine maps and divides by a temperature, its
    normalisation and the autoencoder's are affine. Raises ValueError for a reader that is not linear.
    """
    a, b = affine_maps(sae, reader, attribute, torch.tensor([level]))
    return a[0].permute(2, 0, 1), b[0]


@torch.no_grad()
def affine_maps(sae: SparseAutoencoder, reader: AttributePredictor, attribute: str, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return :func:`affine_logits` at several log-SNR [L], classes last.

    Sums over few active features want them last.

    A float32 [L, m, 16, K] and b [L, K].
    """
    if not is_affine(reader):
        raise ValueError(f"a reader of kind '{reader.kind}' is not affine: use its gradients.")
    at = level.to(reader.knots)
    first = sum(len(c) for c in list(reader.attributes.values())[: list(reader.attributes).index(attribute)])
    chosen = slice(first, first + len(reader.attributes[attribute]))
    low, weight = interpolation(reader.knots, at)
    high = (low + 1).clamp(max=len(reader.knots) - 1)
    w = torch.lerp(reader.weight[:, chosen][low], reader.weight[:, chosen][high], weight[:, None, None])
    b = torch.lerp(reader.bias[:, chosen][low], reader.bias[:, chosen][high], weight[:, None])
    mean, std = at_level(reader.mean, reader.knots, at), at_level(reader.std, reader.knots, at).clamp(min=1e-6)
    temperature = at_level(reader.temperature[attribute], reader.knots, at)
    w = w.view(len(at), -1, reader.channels, CELLS) / (std * temperature[:, None])[:, None, :, None]
    scale = scale_at(sae, at)
    offset = at_level(sae.mean, sae.knots, at) + scale[:, None] * sae.bias.float() - mean
    a = torch.matmul(sae.decoder.float(), (scale[:, None, None, None] * w).permute(0, 2, 3, 1).flatten(2))
    return a.unflatten(2, (CELLS, -1)), b / temperature[:, None] + torch.einsum("lkcg,lc->lk", w, offset)


def scale_at(sae: SparseAutoencoder, level: Tensor) -> Tensor:
    """Return the autoencoder's scale at log-SNR [N]: [N]."""
    return at_level(sae.scale, sae.knots, level.to(sae.knots))
