"""Train our sparse autoencoder and those of other libraries on the same batches.

Every trainer gets each batch in turn, and each one's seconds are added up separately, so that other load on the machine affects all
alike. We use the public parts of the libraries: of `eai-sparsify` SparseCoder with its optimisers (its own loop runs a language model),
of `dictionary-learning` TopKTrainer. Each is tried with its own defaults and with our learning rate, schedule and loss for dead features.
The same code measures all results, in our file format.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ...methods.data.feature_set import FeatureSet
from ...methods.sae.report import evaluate
from ...methods.sae.statistics import fit_normalisation
from ...methods.sae.tokens import TokenStream, token_source
from ...methods.sae.train import sides, start_centre
from ...methods.sae.training import SaeSettings, SaeTraining
from ...models.noise_level import at_level, default_knots
from ...models.sae import TOPK, SaeFile, SparseAutoencoder, save_sae

LIBRARIES = {"eai-sparsify": "sparsify", "dictionary-learning": "dictionary_learning"}
"""Name of the distribution -> name of the module."""
NO_TRITON = {"SPARSIFY_DISABLE_TRITON": "1"}
"""`eai-sparsify` uses Triton if it is installed, even without a GPU. It reads this variable while it is imported."""
DEFAULTS, OURS = "its defaults", "our rate and schedule"


@dataclass
class PeerTrainer:
    """Train an autoencoder of another library, step by step."""

    name: str
    """Library and settings."""
    step: Callable[[Tensor], None]
    """Takes one step on normalised tokens [N, C]."""
    weights: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]
    """Returns encoder [m, C], its bias [m], decoder [m, C] and pre-bias [C]."""
    seconds: float = 0.0
    """Wall-clock seconds of all steps so far."""
    processor: float = 0.0
    """Processor seconds of all steps so far."""
    losses: list[float] = field(default_factory=list)
    """Loss of every step."""


def installed() -> dict[str, str]:
    """Import the libraries that work in this environment; returns name -> version."""
    usable = {}
    for name, module in LIBRARIES.items():
        try:
            with warnings.catch_warnings(), patch.dict(os.environ, NO_TRITON if not torch.cuda.is_available() else {}):
                warnings.simplefilter("ignore")
                importlib.import_module(module)
            usable[name] = metadata.version(name)
        except Exception as error:  # a broken library counts as not installed
            print(f"{name} cannot be imported: {error}", file=sys.stderr)
    return usable


def versions() -> dict[str, str]:
    """List the installed libraries with their versions, without importing them."""
    by_name = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            by_name[name] = metadata.version(name)
    return by_name


def compare_trainers(folder: Path, features: FeatureSet, settings: SaeSettings) -> dict[str, Any]:
    """Train ours and all installed libraries, and write the autoencoders to ``folder``.

    Returns ``ours`` and ``peer`` (``fvu``, ``tokens_per_second``, ``dead_share``, ``l0``, ``processor_seconds``), ``peer_name``,
    ``peers`` (name -> the same figures, for every library and setting) and ``peer_notes``. ``peer`` has the lowest FVU on the held-out
    images. It is None if no library is installed; the notes then give the reason.
    """
    if settings.activation != TOPK:
        raise ValueError("The libraries use TopK per position, so ours must too. Choose the activation 'topk'.")
    source = token_source(features)
    settings = settings.settled(source.channels)
    train, test = sides(source, settings.seed)
    blank = SparseAutoencoder(source.channels, settings.latents, settings.k, default_knots())
    with torch.no_grad():
        fit_normalisation(blank, source.rows(train))
    stream = TokenStream(source, train, settings.batch, settings.seed)
    ours = SaeTraining(_like(blank), settings)
    start_centre(ours.sae, stream)
    usable = installed()
    peers = [make(settings, source.channels, own) for name, make in MAKERS.items() if name in usable for own in (True, False)]
    clock = processor = 0.0
    for number, (tokens, level) in enumerate(stream.batches()):
        if number == settings.steps:
            break
        x = (tokens.float() - at_level(blank.mean, blank.knots, level)) / at_level(blank.scale, blank.knots, level)[:, None]
        started = time.perf_counter(), time.process_time()
        ours.update(tokens, level)
        clock, processor = clock + time.perf_counter() - started[0], processor + time.process_time() - started[1]
        for peer in peers:
            started = time.perf_counter(), time.process_time()
            peer.step(x)
            peer.seconds += time.perf_counter() - started[0]
            peer.processor += time.process_time() - started[1]
    tokens_seen = settings.steps * settings.batch

    def figures(sae: SparseAutoencoder, seconds: float, spent: float, name: str) -> dict[str, Any]:
        report = evaluate(sae, source.rows(test))
        save_sae(SaeFile(sae, str(features.meta.get("site", "")), str(features.meta.get("base_model", "")), report.info()), folder / name)
        quality = {k: report.info()[k] for k in ("fvu", "dead_share", "l0")}
        return {**quality, "tokens_per_second": round(tokens_seen / seconds), "processor_seconds": round(spent, 2)}

    our_figures = figures(ours.sae.requires_grad_(False), clock, processor, "ours.safetensors")
    by_peer = {}
    for number, peer in enumerate(peers):
        by_peer[peer.name] = figures(_filled(blank, peer), peer.seconds, peer.processor, f"peer-{number}.safetensors")
    best = min(by_peer, key=lambda name: by_peer[name]["fvu"], default=None)
    notes = [f"{name} is not installed in this interpreter" for name in LIBRARIES if name not in usable]
    return {
        "ours": our_figures,
        "peer": by_peer.get(best) if best else None,
        "peer_name": best,
        "peers": by_peer,
        "peer_versions": usable,
        "peer_notes": notes,
        "peer_settings": {
            "channels": source.channels,
            "latents": settings.latents,
            "k": settings.k,
            "batch": settings.batch,
            "steps": settings.steps,
            "tokens": tokens_seen,
            "threads": torch.get_num_threads(),
        },
    }


def sparsify_trainer(settings: SaeSettings, channels: int, own: bool) -> PeerTrainer:
    """Make a trainer of `eai-sparsify`: its coder in our copy of its loop.

    ``own`` selects its defaults: schedule-free sign descent, no loss for dead features.
    """
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    torch.manual_seed(settings.seed)
    coder = SparseCoder(channels, SparseCoderConfig(num_latents=settings.latents, k=settings.k))
    if own:
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD

        rate = 5e-3 / math.sqrt(settings.latents / 2**14)
        optimizer = ScheduleFreeWrapper(SignSGD([{"params": coder.parameters(), "lr": rate}]), momentum=0.95)
        optimizer.train()
    else:
        optimizer = torch.optim.Adam(coder.parameters(), lr=settings.lr)
    since = torch.zeros(settings.latents, dtype=torch.long)
    trainer = PeerTrainer(f"eai-sparsify ({DEFAULTS if own else OURS})", lambda x: None, lambda: ())

    def step(x: Tensor) -> None:
        nonlocal since
        number = len(trainer.losses)
        if number == 0:
            coder.b_dec.data = x.mean(0)
        if not own:
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(number)
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x, dead_mask=None if own else since > settings.dead_after)
        (out.fvu if own else out.fvu + settings.aux * out.auxk_loss).backward()
        since += len(x)
        since[out.latent_indices.flatten()] = 0
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        trainer.losses.append(float(out.fvu))

    def weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if own:
            optimizer.eval()
        coder.set_decoder_norm_to_unit_norm()
        return coder.encoder.weight, coder.encoder.bias, coder.W_dec, coder.b_dec

    trainer.step, trainer.weights = step, weights
    return trainer


def dictionary_trainer(settings: SaeSettings, channels: int, own: bool) -> PeerTrainer:
    """Make a trainer of `dictionary-learning`: its TopKTrainer.

    ``own`` selects its defaults: learning rate by the number of features, 1,000 steps of warm-up, no decay.
    """
    from dictionary_learning.trainers.top_k import TopKTrainer

    more = {"warmup_steps": min(1000, settings.steps // 2)}
    if not own:
        start = round(settings.steps * (1 - settings.decay))
        more = {"lr": settings.lr, "warmup_steps": min(settings.warmup, start - 1), "decay_start": start}
    made = TopKTrainer(
        steps=settings.steps,
        activation_dim=channels,
        dict_size=settings.latents,
        k=settings.k,
        layer=0,
        lm_name="",
        seed=settings.seed,
        device="cpu",
        **more,
    )
    if not own:
        made.dead_feature_threshold = settings.dead_after
    trainer = PeerTrainer(f"dictionary-learning ({DEFAULTS if own else OURS})", lambda x: None, lambda: ())

    def step(x: Tensor) -> None:
        trainer.losses.append(made.update(len(trainer.losses), x))

    def weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return made.ae.encoder.weight, made.ae.encoder.bias, made.ae.decoder.weight.T, made.ae.b_dec

    trainer.step, trainer.weights = step, weights
    return trainer


MAKERS = {"eai-sparsify": sparsify_trainer, "dictionary-learning": dictionary_trainer}


def _like(blank: SparseAutoencoder) -> SparseAutoencoder:
    """Make a new autoencoder with the same normalisation."""
    made = SparseAutoencoder(blank.channels, blank.latents, blank.k, blank.knots)
    made.load_state_dict(blank.state_dict())
    return made


@torch.no_grad()
def _filled(blank: SparseAutoencoder, peer: PeerTrainer) -> SparseAutoencoder:
    """Copy a library's weights into an autoencoder of ours."""
    made = _like(blank).requires_grad_(False)
    for mine, theirs in zip((made.encoder, made.encoder_bias, made.decoder, made.bias), peer.weights(), strict=True):
        mine.copy_(theirs.detach())
    return made
