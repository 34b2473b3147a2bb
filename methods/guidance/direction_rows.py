"""Choose the rows of a feature set from which directions are read: a few noise levels, classes as evenly as possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..adp.figures import trajectory
from ..data.feature_set import Entry, FeatureSet, iterate_shards

LEVELS, IMAGES = 10, 1024
"""Most noise levels and images: at the width of SD1.5 and SDXL (20,480) they take 420 MB."""
SURE = 0.8
"""Certainty of a label below which an image is left out, if its class has surer images."""


def images_for_directions(p: Tensor, most: int = IMAGES) -> list[int]:
    """Choose at most ``most`` images by their class probabilities [N, K].

    Sure images first, with classes as evenly as possible. Returns indices in order.
    """
    classes = p.argmax(-1)
    sure = p.amax(-1) >= SURE
    ranked: list[tuple[int, int]] = []
    for c in range(p.shape[1]):
        members = ((classes == c) & sure).nonzero().flatten()
        if not len(members):
            members = (classes == c).nonzero().flatten()
        ranked += [(rank, int(i)) for rank, i in enumerate(members)]
    return sorted(i for _, i in sorted(ranked)[:most])


def direction_levels(features: FeatureSet, most: int = LEVELS) -> list[float]:
    """Choose at most ``most`` of the recorded noise levels (log-SNR, ascending).

    Each stands for an equal share of the calls.
    """
    seen = torch.cat([level for _, level, _ in iterate_shards(features.folder, _sample(features.entries))])
    levels = trajectory(seen)
    picks = torch.linspace(0, len(levels) - 1, min(most, len(levels))).round().long().tolist()
    return sorted({levels[i] for i in picks})


def rows_at(folder: Path, entries: Sequence[Entry], levels: Sequence[float]) -> Tensor:
    """Read the row of every image that is nearest to each level.

    fp16 [N, levels, C, 4, 4], in the order of the entries, shard by shard.
    """
    wanted = torch.tensor(list(levels))
    position = {e.image_id: i for i, e in enumerate(entries)}
    out: Tensor | None = None
    for features, level, ids in iterate_shards(folder, entries):
        if out is None:
            out = torch.zeros(len(entries), len(wanted), *features.shape[1:], dtype=torch.float16)
        for image in ids.unique().tolist():
            rows = (ids == image).nonzero().flatten()
            nearest = (level[rows][:, None] - wanted[None]).abs().argmin(0)
            out[position[image]] = features[rows[nearest]]
    if out is None:
        raise ValueError(f"the feature set '{Path(folder).name}' holds no rows: record images first.")
    return out


def _sample(entries: Sequence[Entry], most: int = 64) -> list[Entry]:
    return list(entries[:: max(1, len(entries) // most)])
