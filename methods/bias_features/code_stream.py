"""Activations of a feature set's maps, one noise level at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...models.sae import SaeFile, SparseAutoencoder
from ...models.sites import pool
from ..data.feature_set import SPATIAL, Entry, FeatureSet, iterate_shards, iterate_spatial
from ..sae.tokens import token_source
from .linear_readout import pooled_codes

BUFFER_BYTES, BUFFER_IMAGES = 2**26, 1024
"""Rows are gathered by noise level within buffers of several shards, at most about this large."""
CODE_VALUES = 2**24
"""Activations that are dense in memory at a time, at most."""
KEPT_BYTES = 2**28
"""Sparse activations are kept for a second pass, as long as they take no more than this."""


@dataclass(frozen=True)
class CodeRows:
    """Rows of one noise level."""

    z: Tensor
    """Activations averaged to the grid, float32 [n, m, 4, 4]."""
    h: Tensor | None
    """Features averaged to the grid, float32 [n, C, 4, 4]; None in a repeated pass."""
    level: float
    """Log-SNR of these rows."""
    images: Tensor
    """Places of the rows' images among the entries, int64 [n]."""
    last: bool
    """Whether no more rows of these images, or of earlier ones, follow."""


def check_set(features: FeatureSet, sae: SaeFile) -> None:
    """Raise ValueError unless a set was recorded at an autoencoder's site and model."""
    site, model = features.meta.get("site"), features.meta.get("base_model")
    if site and site != sae.site:
        raise ValueError(
            f"'{features.name}' was recorded at '{site}' and the autoencoder belongs to '{sae.site}': record a set there, or load the "
            "autoencoder of this site."
        )
    if model and sae.base_model and model != sae.base_model:
        raise ValueError(
            f"'{features.name}' was recorded on '{model}' and the autoencoder was trained on '{sae.base_model}': use those of one model."
        )
    width = features.meta.get("channels")
    if width and int(width) != sae.sae.channels:
        raise ValueError(
            f"'{features.name}' holds features of {width} channels and the autoencoder takes {sae.sae.channels}: use a set recorded where "
            "it was trained."
        )


def count_rows(features: FeatureSet, entries: Sequence[Entry]) -> int:
    """Count the rows that :func:`code_rows` yields for these images, at most."""
    spatial = token_source(features).kind == SPATIAL
    return sum(e.spatial_rows if spatial else e.rows - e.unconditional for e in entries)


class CodeStream:
    """:func:`code_rows` for several passes.

    What the first pass encoded is stored, sparse, if it is not too large.
    """

    def __init__(self, features: FeatureSet, entries: Sequence[Entry], sae: SparseAutoencoder, most: int = KEPT_BYTES) -> None:
        self.features, self.entries, self.sae, self.most = features, entries, sae, most
        self._kept: list[tuple[Tensor, Tensor, CodeRows]] | None = None

    def __iter__(self) -> Iterator[CodeRows]:
        if self._kept is not None:
            for positions, values, rows in self._kept:
                z = torch.zeros(rows.z.shape).flatten()
                z[positions.long()] = values
                yield replace(rows, z=z.view(rows.z.shape))
            return
        stored: list[tuple[Tensor, Tensor, CodeRows]] | None = []
        size = 0
        for rows in code_rows(self.features, self.entries, self.sae):
            yield rows
            if stored is not None:
                flat = rows.z.flatten()
                positions = flat.nonzero().flatten()
                size += 8 * len(positions)
                # Of the dense activations, only the shape is stored.
                shape_only = replace(rows, z=rows.z.new_zeros(1, 1, 1, 1).expand(rows.z.shape), h=None)
                stored.append((positions.int(), flat[positions], shape_only))
                stored = stored if size <= self.most else None
        self._kept = stored


def code_rows(features: FeatureSet, entries: Sequence[Entry], sae: SparseAutoencoder) -> Iterator[CodeRows]:
    """Yield the activations of these images, by noise level within each buffer.

    Conditional rows only, on the CPU wherever the autoencoder is.

    Unpooled maps are encoded position by position, then averaged. Raises ValueError where a set holds neither unpooled maps nor maps
    that were 4x4 anyway, or features that are not finite.
    """
    row_of = torch.zeros(1 + max((e.image_id for e in entries), default=0), dtype=torch.long)
    row_of[[e.image_id for e in entries]] = torch.arange(len(entries))
    for rows, level, ids in row_buffers(features, entries):
        bad = ~rows.flatten(1).isfinite().all(1)
        if bad.any():
            file = entries[int(row_of[ids[bad][0]])].file
            raise ValueError(
                f"the features of '{file}' in '{features.name}' are not finite (NaN or infinite): remove that image's line from "
                "index.jsonl, or record the set again in bf16 or fp32."
            )
        size = max(1, CODE_VALUES // (sae.latents * rows[0, 0].numel()))
        parts = [(at, part) for at in level.unique().tolist() for part in (level == at).nonzero().flatten().split(size)]
        for number, (at, part) in enumerate(parts):
            h = rows[part].float()
            with torch.no_grad():
                z = pooled_codes(sae, h.to(sae.knots.device), level[part].to(sae.knots.device)).cpu()
            yield CodeRows(z, pool(h), at, row_of[ids[part]], number + 1 == len(parts))


def row_buffers(features: FeatureSet, entries: Sequence[Entry]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the maps of these images, several shards at a time.

    fp16 [rows, C, H, W], log-SNR [rows] and image_id [rows]; conditional rows only.
    """
    source = token_source(features).kind
    ordered = sorted(entries, key=lambda e: e.spatial if source == SPATIAL else e.shard)
    shards = iterate_spatial(features.folder, ordered) if source == SPATIAL else iterate_shards(features.folder, ordered)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    size = images = 0
    for part in shards:
        if not len(part[1]):
            continue
        count = len(part[2].unique())
        if parts and (size + part[0].numel() * 2 > BUFFER_BYTES or images + count > BUFFER_IMAGES):
            yield tuple(torch.cat(column) for column in zip(*parts, strict=True))
            parts, size, images = [], 0, 0
        parts.append(part)
        size, images = size + part[0].numel() * 2, images + count
    if parts:
        yield tuple(torch.cat(column) for column in zip(*parts, strict=True))
