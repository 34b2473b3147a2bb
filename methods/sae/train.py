"""Train a sparse autoencoder on a recorded feature set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.noise_level import at_level, default_knots
from ...models.sae import SaeFile, SparseAutoencoder
from ...models.sites import MIDDLE
from ..core.trainer import Progress
from ..data.feature_rows import split_images
from ..data.feature_set import Entry, FeatureSet
from .report import evaluate
from .statistics import fit_normalisation, geometric_median
from .tokens import TokenSource, TokenStream, divided, token_source
from .training import SaeSettings, SaeTraining, summed, world

CHECKPOINTS_FOLDER = "training"
"""Checkpoints lie in this folder of a feature set."""
CENTRE_TOKENS = 16_384
"""Tokens whose geometric median the pre-bias starts from."""


def train_sae(
    features: FeatureSet,
    settings: SaeSettings | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    base_model: str = "",
    device: torch.device | str = "cpu",
) -> SaeFile:
    """Train on a set, hold out 15% of its images, and measure on them.

    ``checkpoint``: file to resume from and to write (:func:`checkpoint_path` gives the usual one; None keeps none); one of other settings,
    or of a set that has grown since, is not used. ``progress`` may raise, which interrupts and leaves a checkpoint. With a
    torch.distributed process group all processes call this with the same arguments, and all return the same autoencoder. ``base_model``:
    the diffusion model's name, if the set does not state it.

    Raises ValueError if the set is empty or holds nothing that an autoencoder can be trained on, features are not finite, or k is larger
    than the number of latents.
    """
    settings = _checked(settings or SaeSettings())
    source = token_source(features)
    settings = settings.settled(source.channels)
    train, held_out = sides(source, settings.seed)
    with torch.inference_mode(False):
        sae = SparseAutoencoder(source.channels, settings.latents, settings.k, default_knots(), settings.activation)
        fit_normalisation(sae, source.rows(train), summed)
        stream = TokenStream(source, train, settings.batch // world()[1], settings.seed)
        start_centre(sae, stream)
        training = SaeTraining(sae.to(device), settings, features.digest, checkpoint)
        training.resume()
        training.train(stream, progress)
        return finished(training, source, held_out, base_model)


def sides(source: TokenSource, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Return this process's part of the training images and of the held-out ones.

    Raises ValueError for too few images.
    """
    entries = [e for e in source.features.entries if source.rows_of(e)]
    if len(entries) < 2:
        raise ValueError(
            f"the feature set '{source.features.name}' holds {len(entries) or 'no'} image(s): record at least two, better 1,000."
        )
    rank, processes = world()
    train, held_out = split_images(entries, seed)
    train = divided(source, train, rank, processes)
    # Held-out images may be too few for all processes; a process without any adds nothing to the sums.
    return train, held_out[rank::processes]


def checkpoint_path(features: FeatureSet, settings: SaeSettings) -> Path:
    """Return the path of a training's checkpoint, in the set's folder.

    Its name is made of the settings and of what the set holds, so that a training starts anew after more was recorded.
    """
    facts = json.dumps([asdict(settings), features.digest], sort_keys=True)
    return features.folder / CHECKPOINTS_FOLDER / f"sae-{settings.activation}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}.safetensors"


def finished(training: SaeTraining, source: TokenSource, held_out: list[Entry], base_model: str = "") -> SaeFile:
    """Round the weights to fp16, and measure the autoencoder on held-out images.

    Weights are fp16 in the file.
    """
    sae = training.sae.requires_grad_(False)
    for weight in training.parameters:
        weight.copy_(weight.half().float())
    report = evaluate(sae, source.rows(held_out), summed)
    features = source.features
    named = str(features.meta.get("base_model") or "") or base_model
    info = {**report.info(), "trained": _trained(training, source)}
    return SaeFile(sae.cpu().eval(), str(features.meta.get("site", MIDDLE)), named, info)


def _trained(training: SaeTraining, source: TokenSource) -> dict[str, Any]:
    s, meta = training.settings, source.features.meta
    every = max(1, len(training.losses) // 50)
    curve = [[i + every, round(sum(training.losses[i : i + every]) / every, 5)] for i in range(0, len(training.losses) - every + 1, every)]
    return {
        **asdict(s),
        "tokens": s.steps * s.batch,
        "features": source.features.name,
        "images": len(source.features.entries),
        "kind": source.kind,
        "positions": source.positions,
        "recorded_with": {k: meta[k] for k in ("source", "sampler", "scheduler", "steps", "cfg") if k in meta},
        "seconds": round(training.seconds, 1),
        "tokens_per_second": round(s.steps * s.batch / max(training.seconds, 1e-9)),
        "processes": world()[1],
        "loss": curve,
    }


def _checked(settings: SaeSettings) -> SaeSettings:
    processes = world()[1]
    if settings.steps < 1 or settings.batch < processes:
        raise ValueError(
            f"training needs at least 1 step of {processes} token(s), one for each process; steps is {settings.steps} and batch is "
            f"{settings.batch}: raise them."
        )
    return replace(settings, batch=settings.batch // processes * processes)


@torch.no_grad()
def start_centre(sae: SparseAutoencoder, stream: TokenStream) -> None:
    """Set the pre-bias and the encoder's length before the first step.

    The pre-bias starts at the geometric median of the first tokens.

    As the decoder's transpose of norm 1 the encoder overshoots, because the atoms are not orthogonal. Over all processes.
    """
    tokens, level = _first(stream.batches(), CENTRE_TOKENS // world()[1])
    x = (tokens.float() - at_level(sae.mean, sae.knots, level)) / at_level(sae.scale, sae.knots, level)[:, None]
    sae.bias.copy_(summed(geometric_median(x)) / world()[1])
    made, wanted = sae.reconstruct_tokens(x) - sae.bias, x - sae.bias
    products = summed(torch.stack([(made * wanted).sum(), made.pow(2).sum()]))
    sae.encoder *= (products[0] / products[1].clamp(min=1e-12)).clamp(0.05, 1.0)


def _first(batches: Iterator[tuple[Tensor, Tensor]], tokens: int) -> tuple[Tensor, Tensor]:
    size = 0
    parts: list[tuple[Tensor, Tensor]] = []
    for part in islice(batches, tokens):
        parts.append(part)
        size += len(part[1])
        if size >= tokens:
            break
    x, level = (torch.cat(column)[:tokens] for column in zip(*parts, strict=True))
    return x, level
