"""``bench balanced-prompts``: measure Balanced Prompts on the small text model, at batches of 1 to 64.

Every cell (prompt, cfg, target and batch size) goes through the node and ComfyUI's sampler, all images of a batch in one pass. Single
images follow a ledger. The judge's hard counts give the figures. Drift is measured against plain images with the same noise, at batch 16.
Cells are stored in the folder, so that an interrupted run resumes.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...factory.captions import PHRASES
from ...factory.host_process import boot_host
from ...factory.portraits import ATTRIBUTES
from ...methods.core.target_text import parse_target
from ...metrics.fairness import joint_probabilities, measure
from ...shipped import weights
from ..core.children import cores, in_children
from ..core.stages import load_or_make

SEED = 874_000_000
"""First seed; every cell of a batch size uses the same ones. Training, calibration and tuning used others."""
STEPS, SAMPLER, SCHEDULER, NEGATIVE = 20, "euler", "normal", "a drawing"
IMAGES, QUICK_IMAGES = 256, 64
BATCHES, QUICK_BATCHES = (1, 2, 4, 16, 64), (1, 16)
DRIFT_BATCH = 16
"""Batch size at which drift is measured."""
TARGETS = {
    "eyeglasses": "eyeglasses: half and half",
    "skin tone": "skin_tone: uniform",
    "eyeglasses x skin tone": "eyeglasses x skin_tone: uniform",
}
PROMPTS = (*((p, 4.0) for p in ATTRIBUTES["profession"]), ("doctor", 1.0), ("doctor", 7.5))
"""Profession and cfg of every prompt."""


@dataclass(frozen=True)
class PromptCell:
    """Images of one prompt, cfg, target and batch size; without a target, plain images."""

    profession: str
    """Profession in the prompt."""
    cfg: float
    """Scale of classifier-free guidance."""
    target: str | None
    """Name in ``TARGETS``."""
    batch: int
    """Images per run."""
    images: int
    """Images of all runs."""

    @property
    def name(self) -> str:
        """Return the cell's name for files."""
        target = (self.target or "plain").replace(" ", "-")
        return f"{self.profession}-cfg-{self.cfg:g}-{target}-batch-{self.batch}-{self.images}"

    @property
    def plain(self) -> PromptCell:
        """Return the cell of plain images with the same noise."""
        return PromptCell(self.profession, self.cfg, None, self.batch, self.images)


class PromptSampler:
    """Hold models and ComfyUI, loaded once per process."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        boot_host()
        torch.set_num_threads(1)
        from ...host.small_models.pixel_vae import PixelVae
        from ...host.small_models.text_model import load_text_model

        self.model, self.clip = load_text_model(weights.TEXT)
        self.vae, self.judge = PixelVae(2), weights.classifier(weights.JUDGE)

    @torch.inference_mode()
    def counted(self, cell: PromptCell) -> dict[str, Any]:
        """Sample a cell; returns what the judge reads, attribute -> class index of every image, and the assigned cells."""
        images, cells = self._sampled(cell)
        read = self.judge.probabilities(images)
        return {"read": {a: p.argmax(-1).tolist() for a, p in read.items()}, "cells": cells}

    def _sampled(self, cell: PromptCell) -> tuple[Tensor, list[str]]:
        """Sample images [N, 3, 32, 32], and return their assigned cells by name."""
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.ledger.ledgers import LedgerHandle
        from ...host.prompts.balance_prompts import balance_prompts
        from ...host.prompts.batch_conditioning import batch_conditioning
        from ...host.small_models.adm_model import empty_latent
        from ...methods.prompts.slots import read_prompt

        negative, images, cells = self._encoded(NEGATIVE), [], []
        ledger = LedgerHandle(f"bench_{cell.name}") if cell.batch == 1 and cell.target else None
        for number in range(cell.images // cell.batch):
            seed, latent = SEED + number, empty_latent(self.model, 0, 0, cell.batch)
            if cell.target is None:
                positive = self._encoded(f"a photo of a {cell.profession}")
            else:
                target = parse_target(TARGETS[cell.target], self.judge.attributes)
                slots = " ".join(f"{{{a}}}" for a in target.attributes)
                prompt = read_prompt(f"a photo of a {cell.profession} {slots}", words_of(target.attributes), target)
                balanced = balance_prompts(prompt, target, latent, seed, ledger)
                positive = batch_conditioning(self.clip, balanced.prompts)
                cells += [target.names[c] for c in balanced.cells]
            sampler = SamplerSettings(seed, STEPS, cell.cfg, SAMPLER, SCHEDULER)
            out = ksample(self.model, sampler, positive, negative, latent)
            images.append(self.vae.decode(out["samples"]).movedim(-1, 1))
        return torch.cat(images), cells

    def _encoded(self, text: str) -> Any:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))


def words_of(attributes: tuple[str, ...]) -> str:
    """Write the words of every class as the node takes them: the first phrase of the model's captions."""
    return "\n".join(
        f"{a}/{name}: {phrases[0]}" for a in attributes for name, phrases in zip(ATTRIBUTES[a], PHRASES[a], strict=True)
    )


_sampler: PromptSampler | None = None


def _make(folder: Path, cell: PromptCell) -> None:
    global _sampler  # one per child process: loading the host takes seconds
    _sampler = _sampler or PromptSampler()
    load_or_make(folder, cell.name, _facts(cell), partial(_sampler.counted, cell))


def _facts(cell: PromptCell) -> dict[str, Any]:
    return {**asdict(cell), "seed": SEED, "steps": STEPS, "target_text": TARGETS.get(cell.target or "")}


def _stored(folder: Path, cell: PromptCell) -> dict[str, Any]:
    def missing() -> dict[str, Any]:
        raise ValueError(f"the part '{cell.name}' is missing: make sure that no other run uses the folder, and run again.")

    return load_or_make(folder, cell.name, _facts(cell), missing)


def prompt_figures(cell: PromptCell, made: dict[str, Any], plain: dict[str, Any] | None) -> dict[str, Any]:
    """Measure a cell: FD with its interval, images as assigned, and drift of the attributes that were not targeted.

    Drift: the largest change of a class's share against plain images, in percentage points.
    """
    target = parse_target(TARGETS[cell.target], ATTRIBUTES)
    one_hot = {a: torch.eye(len(ATTRIBUTES[a]), dtype=torch.float64)[torch.tensor(made["read"][a])] for a in made["read"]}
    report = measure(joint_probabilities({a: one_hot[a] for a in target.attributes}), target.names, target.shares, batch=cell.batch)
    seen = [target.names[c] for c in joint_probabilities({a: one_hot[a] for a in target.attributes}).argmax(-1).tolist()]
    drift = {}
    if plain is not None:
        for a in ATTRIBUTES.keys() - set(target.attributes):
            before = torch.bincount(torch.tensor(plain["read"][a]), minlength=len(ATTRIBUTES[a])) / cell.images
            drift[a] = 100 * float((one_hot[a].mean(0) - before).abs().max())
    return {
        "n": cell.images,
        "fd": report.fd,
        "fd_low": report.fd_low,
        "fd_high": report.fd_high,
        "as_assigned": sum(a == b for a, b in zip(seen, made["cells"], strict=True)) / cell.images,
        **({"drift": drift, "largest_drift": max(drift.values())} if drift else {}),
    }


def run(quick: bool, folder: Path | None = None, workers: int | None = None) -> dict[str, Any]:
    """Run all cells. ``quick``: 64 images of one profession, indicative."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-prompts-") as temporary:
            return run(quick, Path(temporary), workers)
    folder.mkdir(parents=True, exist_ok=True)
    n, batches = (QUICK_IMAGES, QUICK_BATCHES) if quick else (IMAGES, BATCHES)
    prompts = PROMPTS[:1] if quick else PROMPTS
    cells = [PromptCell(p, cfg, t, b, n) for (p, cfg), t, b in itertools.product(prompts, TARGETS, batches)]
    plain = [PromptCell(p, cfg, None, DRIFT_BATCH, n) for p, cfg in prompts]
    in_children(partial(_make, folder), [*plain, *cells], max(1, min(2, workers or cores())))
    rows = {}
    for cell in cells:
        reference = _stored(folder, cell.plain) if cell.batch == DRIFT_BATCH else None
        rows[cell.name] = {**asdict(cell), **prompt_figures(cell, _stored(folder, cell), reference)}
    return {
        "rows": rows,
        "largest_fd": max(row["fd"] for row in rows.values()),
        "largest_drift": max(row.get("largest_drift", 0.0) for row in rows.values()),
        "seed": SEED,
        "steps": STEPS,
        "sampler": SAMPLER,
        "targets": TARGETS,
        "negative": NEGATIVE,
    }
