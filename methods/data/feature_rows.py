"""Prepare rows of a feature set for training: split by image, streamed in bounded memory, checked, and their statistics."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...models.adp import AttributePredictor
from ...models.noise_level import interpolation
from .feature_set import Entry, iterate_shards

HELD_OUT = 0.15
BUFFER_ROWS, BUFFER_BYTES = 60_000, 2**28
"""Rows are shuffled within buffers of several shards, at most this large; twice that is in memory while one is put together."""
CHUNK_ROWS = 1024

Rows = tuple[Tensor, Tensor, Tensor]
"""features fp16 [rows, C, 4, 4], log-SNR [rows], image_id int64 [rows]."""


def split_images(entries: Sequence[Entry], seed: int, labels: Mapping[str, Tensor] | None = None) -> tuple[list[Entry], list[Entry]]:
    """Split images into training and held-out ones; an image's rows never fall on both sides.

    ``labels``: attribute -> class index int64 [N], rows as in entries. If a class with two or more images is missing on one side, its first
    image changes sides.
    """
    order = list(range(len(entries)))
    random.Random(seed).shuffle(order)
    cut = max(1, round(len(order) * HELD_OUT))
    train, held_out = order[cut:], order[:cut]
    for classes in (labels or {}).values():
        for members in (torch.nonzero(classes == c).flatten().tolist() for c in classes.unique()):
            chosen = set(members)
            for side, other in ((train, held_out), (held_out, train)):
                if len(members) > 1 and not chosen & set(side):
                    moved = next(i for i in other if i in chosen)
                    other.remove(moved)
                    side.append(moved)
    return [entries[i] for i in train], [entries[i] for i in held_out]


def checked_rows(folder: Path, entries: Sequence[Entry], channels: int | None = None) -> Iterator[Rows]:
    """Read the rows of images, one shard at a time.

    Raises ValueError if they are of another width than ``channels``, and, with the image's name, if features are not finite.
    """
    for features, level, ids in iterate_shards(folder, entries):
        if channels is not None and features.shape[1] != channels:
            raise ValueError(
                f"'{Path(folder).name}' holds features of {channels} channels and of {features.shape[1]}: it was put together from two "
                "models, so record it again from one."
            )
        yield features, level, ids


def buffers(folder: Path, entries: Sequence[Entry], shards: Sequence[str]) -> Iterator[Rows]:
    """Read the rows of several shards at a time.

    In the order of ``shards``, at most about ``BUFFER_BYTES`` at once.
    """
    position = {s: i for i, s in enumerate(shards)}
    parts: list[Rows] = []
    rows = 0
    for part in iterate_shards(folder, sorted(entries, key=lambda e: position[e.shard])):
        parts.append(part)
        rows += len(part[1])
        if rows >= min(BUFFER_ROWS, BUFFER_BYTES // max(1, 2 * part[0][:1].numel())):
            yield _joined(parts)
            parts, rows = [], 0
    if parts:
        yield _joined(parts)


def shard_orders(entries: Sequence[Entry], seed: int) -> Iterator[list[str]]:
    """Shuffle shards for every epoch, without end; the same orders for the same seed."""
    rng = random.Random(seed)
    while True:
        shards = sorted({e.shard for e in entries})
        rng.shuffle(shards)
        yield shards


def chunks(rows: Iterable[Rows]) -> Iterator[Rows]:
    """Split rows into chunks of a thousand."""
    for features, level, ids in rows:
        yield from zip(features.split(CHUNK_ROWS), level.split(CHUNK_ROWS), ids.split(CHUNK_ROWS), strict=True)


def fit_statistics(predictor: AttributePredictor, folder: Path, entries: Sequence[Entry]) -> Tensor:
    """Set ``mean`` and ``std`` of the pooled features per channel and noise level.

    Each level is measured on the rows that are nearest to it.

    Returns the log-SNR of all rows. Raises ValueError if there are none, or if they are not finite.
    """
    knots = predictor.knots
    count = torch.zeros(len(knots))
    total, square = torch.zeros_like(predictor.mean), torch.zeros_like(predictor.std)
    levels = []
    for features, level, _ in chunks(checked_rows(folder, entries, predictor.channels)):
        nearest = (level[:, None] - knots[None]).abs().argmin(1)
        x = features.float()
        count.index_add_(0, nearest, torch.ones(len(x)))
        total.index_add_(0, nearest, x.mean(dim=(2, 3)))
        square.index_add_(0, nearest, x.pow(2).mean(dim=(2, 3)))
        levels.append(level)
    seen = count > 0
    if not seen.any():
        raise ValueError(f"the feature set '{Path(folder).name}' holds no rows: record images first.")
    mean = total[seen] / count[seen, None]
    std = (square[seen] / count[seen, None] - mean**2).clamp(min=1e-8).sqrt()
    # Levels that no row is nearest to are interpolated from those seen on both sides, so that they are never wild.
    predictor.mean.copy_(filled(mean, knots[seen], knots))
    predictor.std.copy_(filled(std, knots[seen], knots))
    return torch.cat(levels)


def filled(values: Tensor, at: Tensor, knots: Tensor) -> Tensor:
    """Interpolate values at ascending levels to the knots: [T, ...].

    values [S, ...] at ``at`` [S], ``knots`` [T]; values are clamped at both ends.
    """
    low, weight = interpolation(at.contiguous(), knots)
    high = (low + 1).clamp(max=len(at) - 1)
    return torch.lerp(values[low], values[high], weight.view(-1, *[1] * (values.ndim - 1)))


def _joined(parts: list[Rows]) -> Rows:
    features, level, ids = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, level, ids
