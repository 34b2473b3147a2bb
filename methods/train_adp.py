"""Train an Attribute Distribution Predictor from recorded features and soft pseudo-labels."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..models.adp import AttributePredictor, interpolation
from .feature_set import Entry, iterate_shards, read_index
from .training import Progress, warmup_cosine

HELD_OUT = 0.15
BUFFER_ROWS = 60_000


def default_knots(low: float = -10.0, high: float = 9.0, count: int = 20) -> Tensor:
    """Evenly spaced log-SNR levels over what samplers visit (sigma 150 to 0.01)."""
    return torch.linspace(low, high, count)


def split_images(entries: list[Entry], seed: int) -> tuple[list[Entry], list[Entry]]:
    """Training and held-out images; an image's rows never fall on both sides."""
    order = list(entries)
    random.Random(seed).shuffle(order)
    cut = max(1, round(len(order) * HELD_OUT))
    return order[cut:], order[:cut]


def _buffers(folder: Path, entries: list[Entry], rng: random.Random) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows of several shards at a time, at most about ``BUFFER_ROWS``, so that memory stays bounded."""
    shards = sorted({e.shard for e in entries})
    rng.shuffle(shards)
    order = {s: i for i, s in enumerate(shards)}
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    rows = 0
    for part in iterate_shards(folder, sorted(entries, key=lambda e: order[e.shard])):
        parts.append(part)
        rows += len(part[1])
        if rows >= BUFFER_ROWS:
            yield tuple(torch.cat(column) for column in zip(*parts, strict=True))
            parts, rows = [], 0
    if parts:
        yield tuple(torch.cat(column) for column in zip(*parts, strict=True))


def fit_statistics(predictor: AttributePredictor, folder: Path, entries: list[Entry]) -> None:
    """Set ``mean`` and ``std`` of the pooled features per channel and noise level, from the rows nearest to every level."""
    knots = predictor.knots
    count = torch.zeros(len(knots))
    total, square = torch.zeros_like(predictor.mean), torch.zeros_like(predictor.std)
    for features, level, _ in iterate_shards(folder, entries):
        nearest = (level[:, None] - knots[None]).abs().argmin(1)
        x = features.float()
        count.index_add_(0, nearest, torch.ones(len(x)))
        total.index_add_(0, nearest, x.mean(dim=(2, 3)))
        square.index_add_(0, nearest, x.pow(2).mean(dim=(2, 3)))
    seen = count > 0
    if not seen.any():
        raise ValueError("the feature set holds no rows: record images first.")
    mean = total[seen] / count[seen, None]
    std = (square[seen] / count[seen, None] - mean**2).clamp(min=1e-8).sqrt()
    # Levels that no row is nearest to are interpolated from those seen on both sides, so that they are never wild.
    low, weight = interpolation(knots[seen], knots)
    high = (low + 1).clamp(max=int(seen.sum()) - 1)
    predictor.mean.copy_(torch.lerp(mean[low], mean[high], weight[:, None]))
    predictor.std.copy_(torch.lerp(std[low], std[high], weight[:, None]))


def train_adp(
    folder: Path,
    labels: Mapping[str, Tensor],
    attributes: Mapping[str, tuple[str, ...]],
    kind: str = "mlp",
    epochs: int = 6,
    batch: int = 256,
    lr: float = 2e-3,
    weight_decay: float = 0.02,
    hidden: int = 96,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[AttributePredictor, dict[str, list[list[float]]]]:
    """Train on a feature set.

    ``labels``: attribute -> class probabilities float32 [images, K], by image_id (one-hot where they are certain). Cross-entropy on soft
    labels (equal to the KL to them up to a constant), AdamW. Returns the predictor, calibrated on held-out images by a temperature per
    noise level, and held-out accuracy by log-SNR: attribute -> [[log_snr, accuracy], ...].
    """
    entries = read_index(folder)
    train, held = split_images(entries, seed)
    first = next(iter(iterate_shards(folder, train[:1])))[0]
    torch.manual_seed(seed)
    predictor = AttributePredictor(attributes, first.shape[1], default_knots(), kind, hidden)
    fit_statistics(predictor, folder, train)
    optimizer = torch.optim.AdamW([p for p in predictor.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay)
    total = max(1, epochs * sum(e.rows for e in train) // batch)
    step, rng, running = 0, random.Random(seed), []
    for _ in range(epochs):
        for features, level, ids in _buffers(folder, train, rng):
            order = torch.randperm(len(level))
            for rows in order.split(batch):
                for group in optimizer.param_groups:
                    group["lr"] = lr * warmup_cosine(step, total, 50)
                logits = predictor(features[rows].float(), level[rows])
                loss = sum(-(labels[a][ids[rows]] * logits[a].log_softmax(-1)).sum(-1).mean() for a in attributes)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                running.append(loss.item())
                step += 1
                if progress and step % 50 == 0:
                    progress(step, total, {"loss": sum(running[-50:]) / len(running[-50:])})
    predictor.eval().requires_grad_(False)
    read, level, ids = _read_all(predictor, folder, held)
    truth = {a: labels[a][ids] for a in attributes}
    for a in attributes:
        fit_temperature(predictor, a, read[a], truth[a], level)
    return predictor, {a: accuracy_by_level(read[a], truth[a], level, predictor.knots) for a in attributes}


@torch.no_grad()
def _read_all(predictor: AttributePredictor, folder: Path, entries: list[Entry]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    logits: dict[str, list[Tensor]] = {a: [] for a in predictor.attributes}
    levels, ids = [], []
    for features, level, image_id in iterate_shards(folder, entries):
        for a, value in predictor(features.float(), level).items():
            logits[a].append(value)
        levels.append(level)
        ids.append(image_id)
    return {a: torch.cat(v) for a, v in logits.items()}, torch.cat(levels), torch.cat(ids)


def fit_temperature(predictor: AttributePredictor, attribute: str, logits: Tensor, truth: Tensor, level: Tensor) -> None:
    """Temperature per noise level that minimises held-out cross-entropy (Guo et al. 2017), by search over 0.25 to 8."""
    nearest = (level[:, None] - predictor.knots[None]).abs().argmin(1)
    grid = torch.logspace(-2, 3, 41, base=2.0)
    for i in range(len(predictor.knots)):
        rows = nearest == i
        if rows.sum() < 20:
            continue
        losses = torch.stack([-(truth[rows] * (logits[rows] / t).log_softmax(-1)).sum(-1).mean() for t in grid])
        predictor.temperature[attribute].data[i] = grid[losses.argmin()]


def accuracy_by_level(logits: Tensor, truth: Tensor, level: Tensor, knots: Tensor) -> list[list[float]]:
    """Balanced accuracy (mean recall over classes) of the rows nearest to every knot: [[log_snr, accuracy], ...]."""
    nearest = (level[:, None] - knots[None]).abs().argmin(1)
    right, true_class = logits.argmax(-1) == truth.argmax(-1), truth.argmax(-1)
    result = []
    for i, knot in enumerate(knots.tolist()):
        rows = nearest == i
        recalls = [right[rows & (true_class == c)].float().mean().item() for c in range(truth.shape[1]) if (rows & (true_class == c)).any()]
        if recalls:
            result.append([round(knot, 3), round(sum(recalls) / len(recalls), 4)])
    return result
