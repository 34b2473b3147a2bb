"""Sample plain, guided and steered images for ``bench downstream``.

The images come from the shipped unconditional model through the host's KSampler; the shipped labeller labels them. A set that exists
already is not sampled again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...factory.host_process import boot_host
from ...methods.bias_features.run import SteerSettings
from ...methods.core.target_text import parse_target
from ...methods.guidance.run import GuidanceSettings
from ...models.bias_features import load_bias_features
from ...models.files import read_safetensors, write_safetensors
from ...models.sae import load_sae
from ...shipped import weights

FIRST_SEED, SEEDS_APART = 890_000_000, 100_000
"""Repetitions are 100,000 seeds apart, and each batch adds 1. Plain, guided and steered images have the same seeds. Training, calibration
and tuning used other seeds.
"""
BATCH, STEPS, SAMPLER, SCHEDULER = 16, 20, "ddim", "normal"
PLAIN, GUIDED, STEERED = KINDS = ("plain", "guided", "steered")
FILES = {
    PLAIN: (weights.DIFFUSION,),
    GUIDED: (weights.DIFFUSION, weights.ADP),
    STEERED: (weights.DIFFUSION, weights.ADP, weights.SAE, weights.BIAS_FEATURES),
}


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels."""

    images: Tensor
    """uint8 [N, 3, 32, 32]."""
    labels: dict[str, Tensor]
    """Attribute -> int64 [N], as the labeller reads it."""
    cells: Tensor | None
    """int64 [N]: cell of the target that each image was assigned; None for plain images."""


class ImageSetSampler:
    """Sample image sets; ComfyUI and the models load when the first set is sampled."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def _models(self) -> dict[str, Any]:
        if self._loaded is None:
            boot_host()
            torch.set_num_threads(1)
            from ...factory.make_steering import unconditional_bed
            from ...host.small_models.pixel_vae import PixelVae

            self._loaded = {
                "bed": unconditional_bed(),
                "vae": PixelVae(2),
                "adp": weights.adp(),
                "labeller": weights.classifier(),
                "sae": load_sae(weights.SAE),
                "bias": load_bias_features(weights.BIAS_FEATURES),
            }
        return self._loaded

    def facts(self, kind: str, target: str, repetition: int, n: int) -> dict[str, str]:
        """Collect all facts that a set depends on, as its file stores them."""
        digests = [hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in (*FILES[kind], weights.LABELLER)]
        aim = "" if kind == PLAIN else target
        return {"files": " ".join(digests), "target": aim, "kind": kind, "repetition": str(repetition), "n": str(n)}

    def made(self, folder: Path, kind: str, target: str, repetition: int, n: int) -> ImageSet:
        """Return a set for one repetition, from ``folder`` or newly sampled.

        ``n`` is a multiple of the batch size.
        """
        facts = self.facts(kind, target, repetition, n)
        name = "-".join([kind, *re.findall(r"\w+", facts["target"]), str(repetition)])
        path = folder / f"images-{name}.safetensors"
        if path.is_file():
            tensors, stored_facts = read_safetensors(path)
            if {k: stored_facts.get(k) for k in facts} == facts:
                return _made(tensors)
        made = self._sample(kind, target, repetition, n)
        tensors = {"images": made.images, **{f"labels.{a}": x for a, x in made.labels.items()}}
        write_safetensors(path, tensors if made.cells is None else {**tensors, "cells": made.cells}, facts)
        return made

    @torch.inference_mode()
    def _sample(self, kind: str, target: str, repetition: int, n: int) -> ImageSet:
        m = self._models()  # starts ComfyUI, which the next imports need
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.small_models.adm_model import empty_latent

        images, cells = [], []
        first = FIRST_SEED + SEEDS_APART * repetition
        for seed in range(first, first + n // BATCH):
            model = self._patched(kind, target, seed, cells)
            settings = SamplerSettings(seed, STEPS, 1.0, SAMPLER, SCHEDULER)
            out = ksample(model, settings, m["bed"].positive, m["bed"].negative, empty_latent(model, 0, 0, BATCH))
            images.append((m["vae"].decode(out["samples"]).movedim(-1, 1).clamp(0, 1) * 255).round().byte())
        pictures = torch.cat(images)
        read = m["labeller"].probabilities(pictures.float() / 255)
        return ImageSet(pictures, {a: p.argmax(-1) for a, p in read.items()}, torch.cat(cells) if cells else None)

    def _patched(self, kind: str, aim: str, seed: int, cells: list[Tensor]) -> Any:
        """Return the MODEL of one batch; ``cells`` receives the assignment."""
        m = self._models()
        from ...host.bias_features.apply import apply_steering
        from ...host.guidance.apply import apply_guidance

        if kind == PLAIN:
            return m["bed"].model
        target = parse_target(aim, m["adp"].attributes)

        def keep(run: Any) -> None:
            cells.append(run.summary().cells.clone())

        if kind == GUIDED:
            return apply_guidance(m["bed"].model, m["adp"], GuidanceSettings(target, seed=seed), keep)
        return apply_steering(m["bed"].model, m["sae"], m["bias"], SteerSettings(target, seed=seed), m["adp"], on_finish=keep)


def _made(tensors: dict[str, Tensor]) -> ImageSet:
    labels = {k.removeprefix("labels."): v for k, v in tensors.items() if k.startswith("labels.")}
    return ImageSet(tensors["images"], labels, tensors.get("cells"))
