"""Stream tokens (features of single positions) of a feature set: split by image, shuffled, repeatable from any step.

A *group* of shards is in memory at a time; its tokens are shuffled over images, noise levels and positions. What a step sees depends on
the seed, the step and the rank alone, so that a training that resumes gets the batches it would have had.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.sites import MIDDLE
from ..data.feature_set import POOLED, SPATIAL, Entry, FeatureSet, iterate_shards, iterate_spatial

GRID = [4, 4]
SMALL_LATENT = 16
"""Side of a latent up to which the deepest map of a network that halves twice is no larger than 4x4, which pooling leaves as it is."""
GROUP_TOKENS, GROUP_BYTES = 2**20, 2**28

Rows = tuple[Tensor, Tensor]
"""features fp16 [rows, C, H, W], log-SNR fp32 [rows]."""


@dataclass(frozen=True)
class TokenSource:
    """Hold a feature set whose rows are full maps."""

    features: FeatureSet
    """The feature set."""
    kind: str
    """Kind of its rows, ``POOLED`` or ``SPATIAL``."""
    channels: int
    """Channels of a map."""
    positions: int
    """Positions of a map, H * W."""

    def rows_of(self, entry: Entry) -> int:
        """Return the number of an image's rows."""
        return entry.spatial_rows if self.kind == SPATIAL else entry.rows

    def shard_of(self, entry: Entry) -> str:
        """Return the shard that holds an image's rows."""
        return entry.spatial if self.kind == SPATIAL else entry.shard

    def shards(self, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
        """Group entries by shard, in the order of the index; leave out those without rows."""
        by_shard: dict[str, list[Entry]] = {}
        for entry in entries:
            if self.rows_of(entry):
                by_shard.setdefault(self.shard_of(entry), []).append(entry)
        return by_shard

    def rows(self, entries: Sequence[Entry]) -> Iterator[Rows]:
        """Read the rows of these images, a shard at a time.

        Raises ValueError if features are not finite, not as wide or as large as the others, or fewer than the index says.
        """
        folder, name = self.features.folder, self.features.name
        for shard, members in self.shards(entries).items():
            parts = iterate_spatial(folder, members) if self.kind == SPATIAL else iterate_shards(folder, members, None)
            for features, level, ids in parts:
                if features.ndim != 4 or features.shape[1] != self.channels or features[0, 0].numel() != self.positions:
                    raise ValueError(
                        f"'{shard}' in '{name}' holds features of shape {list(features.shape[1:])}, and others hold {self.channels} "
                        f"channels at {self.positions} positions: it was put together from two models or sizes, so record it again."
                    )
                if len(level) != sum(self.rows_of(e) for e in members):
                    raise ValueError(f"'{shard}' in '{name}' holds {len(level)} rows where the index says otherwise: record the set again.")
                bad = ~(features.flatten(1).isfinite().all(1) & level.isfinite())
                if bad.any():
                    file = next(e.file for e in members if e.image_id == int(ids[bad][0]))
                    raise ValueError(
                        f"the features of '{file}' in '{name}' are not finite (NaN or infinite): remove that image's line from "
                        "index.jsonl, or record the set again in bf16 or fp32."
                    )
                yield features, level


def token_source(features: FeatureSet) -> TokenSource:
    """Choose what an autoencoder is trained on.

    The unpooled maps, or pooled ones if the maps were 4x4 anyway.

    Raises ValueError if there is neither, if the set does not say how large its maps were, and if it is empty.
    """
    name, meta = features.name, features.meta
    kind = SPATIAL if any(e.spatial_rows for e in features.entries) else POOLED
    unpooled = kind == SPATIAL or _left_whole(meta)
    if not unpooled:
        holds = "averages over regions alone" if unpooled is False else "4x4 grids alone and does not say how large the maps were"
        raise ValueError(
            f"the feature set '{name}' holds {holds}, and an autoencoder is trained on single positions: record a set with noise levels "
            "under 'spatial_levels'."
        )
    for entry in features.entries:
        if not (entry.spatial_rows if kind == SPATIAL else entry.rows):
            continue
        parts = iterate_spatial(features.folder, [entry]) if kind == SPATIAL else iterate_shards(features.folder, [entry], None)
        for rows, _level, _ids in parts:
            if len(rows):
                return TokenSource(features, kind, rows.shape[1], rows[0, 0].numel())
    raise ValueError(f"the feature set '{name}' holds no rows: record images first.")


def _left_whole(meta: Mapping[str, Any]) -> bool | None:
    """Return whether pooling to 4x4 left the maps as they were.

    None if the set does not say.
    """
    if meta.get("map"):
        return list(meta["map"]) == GRID
    if meta.get("latent"):
        return meta.get("site", MIDDLE) == MIDDLE and max(meta["latent"][-2:]) <= SMALL_LATENT
    return None


def divided(source: TokenSource, entries: Sequence[Entry], rank: int, world: int) -> list[Entry]:
    """Return the images that one of ``world`` processes reads.

    Full shards, or single images if there are too few shards.

    Raises ValueError where there are fewer images than processes.
    """
    by_shard = list(source.shards(entries).values())
    if len(by_shard) >= world:
        return [e for members in by_shard[rank::world] for e in members]
    mine = [e for members in by_shard for e in members][rank::world]
    if not mine:
        raise ValueError(f"{len(entries)} images cannot be divided over {world} processes: record more images, or start fewer processes.")
    return mine


class TokenStream:
    """Endless batches of tokens.

    ``batch``: tokens per step; ``group``: tokens that are shuffled together, at least.
    """

    def __init__(self, source: TokenSource, entries: Sequence[Entry], batch: int, seed: int, group: int | None = None) -> None:
        self.source, self.batch, self.seed = source, batch, seed
        self.group = group or min(GROUP_TOKENS, GROUP_BYTES // (2 * source.channels))
        self._by_shard = source.shards(entries)
        if not self._by_shard:
            raise ValueError(f"the feature set '{source.features.name}' holds no rows to train on: record images first.")

    def batches(self, start: int = 0) -> Iterator[Rows]:
        """Yield the tokens of step ``start`` and of all steps after it.

        fp16 [N, C] and their log-SNR fp32 [N].
        """
        epoch = 0
        while True:
            for number, shards in enumerate(self._groups(epoch)):
                steps = self._steps(shards)
                if start >= steps:
                    start -= steps
                    continue
                tokens, level = self._load(shards)
                order = torch.randperm(len(level), generator=torch.Generator().manual_seed(_mixed(self.seed, epoch, number)))
                for step in range(start, steps):
                    rows = order[step * self.batch : (step + 1) * self.batch]
                    yield tokens[rows], level[rows]
                start = 0
            epoch += 1

    def _tokens(self, shard: str) -> int:
        return self.source.positions * sum(self.source.rows_of(e) for e in self._by_shard[shard])

    def _steps(self, shards: Sequence[str]) -> int:
        return max(1, sum(self._tokens(s) for s in shards) // self.batch)

    def _groups(self, epoch: int) -> Iterator[list[str]]:
        """Order the shards anew for every epoch, in groups.

        What is left joins the last group.
        """
        shards = sorted(self._by_shard)
        random.Random(_mixed(self.seed, epoch, -1)).shuffle(shards)
        left = sum(self._tokens(s) for s in shards)
        chosen: list[str] = []
        size = 0
        for shard in shards:
            chosen.append(shard)
            size, left = size + self._tokens(shard), left - self._tokens(shard)
            if size >= self.group and left >= self.batch:
                yield chosen
                chosen, size = [], 0
        if chosen:
            yield chosen

    def _load(self, shards: Sequence[str]) -> Rows:
        entries = [e for s in shards for e in self._by_shard[s]]
        tokens, levels = [], []
        for features, level in self.source.rows(entries):
            tokens.append(as_tokens(features))
            levels.append(level.repeat_interleave(self.source.positions))
        return torch.cat(tokens), torch.cat(levels)


def as_tokens(features: Tensor) -> Tensor:
    """Turn maps [rows, C, H, W] into tokens [rows * H * W, C]."""
    return features.movedim(1, -1).flatten(0, 2)


def _mixed(seed: int, epoch: int, group: int) -> int:
    """Make one seed of three numbers."""
    return ((seed * 1_000_003 + epoch) * 1_000_003 + group + 1) % 2**63
