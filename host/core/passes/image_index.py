"""The index that every image of a run has in its batch, where a batch is sampled in parts."""

from __future__ import annotations

import torch
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..types import Latent

MOST_DRAWS = 1024
"""Highest number of images whose noise is compared."""
MOST_VALUES = 2**25
"""Highest number of values that are drawn for the comparison."""


def index_of_latent(latent: Latent) -> list[int]:
    """Return the index of every image of a LATENT in its batch.

    A LATENT that was cut from a batch says it in ``batch_index``. If the host maps a node over a list of LATENTs that do not say it, they
    follow one another.
    """
    n = int(latent["samples"].shape[0])
    known = latent.get("batch_index")
    if known is not None:
        return [int(i) for i in known]
    first = n * list_position()
    return list(range(first, first + n))


def list_position() -> int:
    """Return the position in the list over which the host maps the node that it executes now; 0 without one."""
    context = get_executing_context()
    return 0 if context is None else context.list_index or 0


def index_of_noise(noise: Tensor, seed: int | None) -> list[int] | None:
    """Find the index of every image of a run in its batch, from its noise [N, ...].

    The host draws the noise of a batch image by image from the seed, and an image that was cut from a batch keeps its own. A patch sees
    the noise and not the LATENT, so the noise is drawn again and compared. Returns None for noise of another kind.
    """
    if seed is None or noise.is_nested or noise.device.type != "cpu" or not noise.numel():
        return None
    n = len(noise)
    begin = noise.flatten(1)[:, :16].float()
    if not begin.any():
        return None
    generator = torch.Generator().manual_seed(seed)
    if torch.equal(torch.randn(noise.shape, generator=generator).flatten(1)[:, :16].to(noise.dtype).float(), begin):
        return list(range(n))
    generator.manual_seed(seed)
    draws: dict[bytes, int] = {}
    wanted = [row.numpy().tobytes() for row in begin]
    for i in range(min(MOST_DRAWS, MOST_VALUES // noise[0].numel())):
        drawn = torch.randn((1, *noise.shape[1:]), generator=generator).flatten(1)[:, :16].to(noise.dtype).float()
        draws[drawn.numpy().tobytes()] = i
        if len(draws) >= n and all(row in draws for row in wanted):
            return [draws[row] for row in wanted]
    return None
