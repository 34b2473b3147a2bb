"""Sampling the shipped models without a host: the same guidance code in a DDIM loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..methods.core.run import Call
from ..methods.data.feature_set import POOLED, SPATIAL
from ..methods.guidance.run import GuidanceRun
from ..models.adm_unet import AdmUNet
from ..models.noise_level import log_snr
from ..models.pixel_latents import depth_to_space
from ..models.sites import GRID, MIDDLE, block_site, pool
from .schedule import ddim, ddim_timesteps, sigmas

STEPS = 20
LATENT = (12, 16, 16)


@dataclass(frozen=True)
class RecordedSite:
    """Say what to record while sampling: the pooled features of every call."""

    site: str = MIDDLE
    """Site of the features."""
    maps: bool = False
    """Whether to keep the unpooled features too."""


@dataclass
class Samples:
    """Hold sampled images."""

    latents: Tensor
    """Clean latents [N, 12, 16, 16]."""
    images: Tensor
    """Images [N, 3, 32, 32] in 0..1."""
    cells: Tensor | None = None
    """Assigned cell per image; None without guidance."""
    features: Tensor | None = None
    """RecordedSite features [N, steps, C, 4, 4], fp16."""
    maps: Tensor | None = None
    """The same unpooled [N, steps, C, H, W], fp16."""
    level: Tensor | None = None
    """log-SNR of the recorded calls."""
    runs: list[GuidanceRun] = field(default_factory=list)
    """Guidance runs, one per batch."""


def noise_for(seeds: list[int], shape: tuple[int, ...] = LATENT) -> Tensor:
    """Draw standard normal noise [N, *shape], with a generator per image.

    So an image does not depend on its batch.
    """
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def recorded_as(net: AdmUNet, base_model: str, steps: int = STEPS, site: str = MIDDLE) -> dict[str, Any]:
    """Describe features that :func:`sample` records, for set.json.

    Raises ValueError if the model has no such site.
    """
    channels, size = site_shape(net, site)
    return {
        "kind": POOLED if size == (GRID, GRID) else SPATIAL,
        "source": "samples",
        "base_model": base_model,
        "site": site,
        "channels": channels,
        "latent": list(LATENT),
        "sampler": "ddim",
        "steps": steps,
        # Of the middle block it is known that pooling leaves its map as it is.
        **({} if site == MIDDLE else {"map": list(size)}),
    }


@torch.no_grad()
def site_shape(net: AdmUNet, site: str) -> tuple[int, tuple[int, int]]:
    """Return the channels, height and width of h at a site.

    The site is "middle" or "output.N"; the model is called on zeros.

    Raises ValueError if the model has no such site.
    """
    shapes: dict[str, tuple[int, tuple[int, int]]] = {}

    def look(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        shapes[block_site(options["block"])] = h.shape[1], tuple(h.shape[-2:])
        return h, skip

    label = None if net.num_classes is None else torch.zeros(1, dtype=torch.long)
    net(torch.zeros(1, *LATENT), torch.zeros(1), y=label, transformer_options={"patches": {"output_block_patch": [look]}})
    if site not in shapes:
        raise ValueError(f"this model has no site '{site}': choose one of {', '.join(shapes)}.")
    return shapes[site]


def sample(
    net: AdmUNet,
    seeds: list[int],
    batch: int = 16,
    steps: int = STEPS,
    make_run: Callable[[int, int], GuidanceRun] | None = None,
    profession: int | None = None,
    record: RecordedSite | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Samples:
    """Sample one image per seed.

    ``make_run(batch index, first seed)`` makes the guidance of a batch; ``profession`` is the class label. ``record`` says which features
    to record. ``on_step(done, total)`` counts U-Net calls over all batches and may raise.
    """
    latents, cells, features, unpooled, runs = [], [], [], [], []
    batches = [seeds[i : i + batch] for i in range(0, len(seeds), batch)]
    for number, chunk in enumerate(batches):
        run = make_run(number, chunk[0]) if make_run else None
        pooled: list[Tensor] = []
        full: list[Tensor] = []

        def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
            site = block_site(options["block"])
            if record is not None and site == record.site:
                pooled.append(pool(h).half())  # noqa: B023 (used within this batch)
                if record.maps:
                    full.append(h.half())  # noqa: B023
            if run is not None and site in run.sites:  # noqa: B023
                h = run.edit(site, h, Call.read(options))  # noqa: B023
            return h, skip

        def unet(x: Tensor, t: Tensor, options: dict[str, Any]) -> Tensor:
            y = None if profession is None else torch.full((x.shape[0],), profession)
            return net(x, t, y=y, transformer_options=options)

        def report(done: int, total: int) -> None:
            if on_step:
                on_step(number * total + done, len(batches) * total)  # noqa: B023

        patches = {"output_block_patch": [patch]} if run is not None or record is not None else None
        latents.append(ddim(unet, noise_for(chunk), steps, patches, report))
        if run is not None:
            runs.append(run)
            cells.append(run.cells if run.cells is not None else torch.full((len(chunk),), -1))
        if record is not None:
            features.append(torch.stack(pooled, dim=1))
        if full:
            unpooled.append(torch.stack(full, dim=1))
    result = torch.cat(latents)
    return Samples(
        latents=result,
        images=depth_to_space(result),
        cells=torch.cat(cells) if cells else None,
        features=torch.cat(features) if features else None,
        maps=torch.cat(unpooled) if unpooled else None,
        level=log_snr(sigmas()[ddim_timesteps(steps)]) if record is not None else None,
        runs=runs,
    )
