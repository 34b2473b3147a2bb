"""Sample the images of ``bench guidance`` through the host's KSampler."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...factory.captions import PHRASES
from ...factory.host_process import boot_host
from ...factory.portraits import ATTRIBUTES
from ...methods.core.target_text import parse_target
from ...methods.core.targets import TargetDistribution
from ...methods.guidance.directions import MEAN
from ...methods.guidance.moves import CALIBRATED, GRADIENT
from ...methods.guidance.run import QUOTA as BY_QUOTA
from ...methods.guidance.run import GuidanceRun, GuidanceSettings
from ...models.files import write_safetensors
from ...shipped import weights
from ..core.children import peak_megabytes
from .guidance_cells import BASE, LATENT, MIXING, OURS, SAMPLE, SOFT, TARGETS, TEXT, UNCONDITIONAL, UNIVERSAL, Cell
from .per_image import SampleGuidance, drawn_cells
from .universal import apply_universal

STEPS = 20
FILES: dict[str, tuple[Path, Path]] = {UNCONDITIONAL: (weights.DIFFUSION, weights.ADP), TEXT: (weights.TEXT, weights.ADP_TEXT)}
"""Bed -> files of its diffusion model and its ADP."""


def facts(cell: Cell) -> dict[str, Any]:
    """Collect all facts that a cell's images depend on."""
    model, adp = FILES[cell.bed]
    used = [model, weights.JUDGE]
    used += [adp] if cell.kind in (OURS, SAMPLE, LATENT, *SOFT) else []
    used += [weights.LABELLER] if cell.kind == UNIVERSAL else []
    text = TARGETS[cell.target] if cell.target else None
    return {"cell": vars(cell), "steps": STEPS, "target": text, "files": [_digest(path) for path in used]}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def prompt_of(profession: str, named: dict[str, str]) -> str:
    """Write a prompt that names some classes in the words of the model's captions.

    ``named``: attribute -> class.
    """
    phrases = [PHRASES[attribute][ATTRIBUTES[attribute].index(name)][0] for attribute, name in named.items()]
    return " ".join([f"a photo of a {profession}", " and ".join(phrases)]).strip()


def reordered_cells(cells: Tensor, source: TargetDistribution, wanted: TargetDistribution) -> Tensor:
    """Translate cell indices to another order of the classes: int64 [N]."""
    return torch.tensor([wanted.cells.index(cell) for cell in source.cells])[cells]


class CellSampler:
    """Hold models and ComfyUI, loaded once; forked children use them too.

    ``beds``: the models to load.
    """

    def __init__(self, beds: tuple[str, ...] = (UNCONDITIONAL,)) -> None:
        torch.set_num_threads(1)
        boot_host()
        torch.set_num_threads(1)
        from ...factory.make_steering import text_bed, unconditional_bed
        from ...host.small_models.pixel_vae import PixelVae

        makers = {UNCONDITIONAL: unconditional_bed, TEXT: text_bed}
        self.beds = {name: makers[name]() for name in beds}
        self.adps = {name: weights.adp(FILES[name][1]) for name in beds}
        self.vae, self.judge = PixelVae(2), weights.classifier(weights.JUDGE)
        self._prompts: dict[str, Any] = {}
        self._score: Any = None

    def make(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Sample a cell, judge it, and store the data for its figures in ``folder``.

        The file ``cell.name``.safetensors holds features [N, D], probabilities of every attribute [N, K], and assigned cells [N] if there
        are any.
        """
        with torch.no_grad():  # not inference mode: universal guidance takes a gradient through the weights
            if cell.kind == UNIVERSAL:
                self._labels()
            images, cells, seconds = self.sampled(cell)
            peak = peak_megabytes()
            seen = {f"read.{a}": p for a, p in self.judge.probabilities(images).items()}
            seen["features"] = self.judge.embed(images)
        if cells is not None:
            seen["cells"] = cells
        write_safetensors(folder / f"{cell.name}.safetensors", seen)
        return {"n": len(images), "seconds_per_image": seconds, "peak_mb": peak}

    def sampled(self, cell: Cell) -> tuple[Tensor, Tensor | None, float]:
        """Sample a cell; returns images, assigned cells and processor seconds per image.

        Images are [N, 3, 32, 32] in 0..1; cells follow the judge's order of classes.
        """
        from ...host.core.sampling import SamplerSettings, ksample
        from ...host.small_models.adm_model import empty_latent

        bed, images, cells = self.beds[cell.bed], [], []
        if cell.images % cell.batch:
            raise ValueError(f"{cell.images} images do not divide into batches of {cell.batch}. Choose a multiple of the batch size.")
        started = time.process_time()
        for batch in range(cell.images // cell.batch):
            seed, keep = cell.seed + batch, []
            model = self._model(cell, seed, keep)
            positive, negative = self._conditions(cell, seed, batch, keep)
            sampler = SamplerSettings(seed, STEPS, bed.cfg, bed.sampler, "normal")
            out = ksample(model, sampler, positive, negative, empty_latent(model, 0, 0, cell.batch))
            images.append(self.vae.decode(out["samples"]).movedim(-1, 1))
            cells += keep
        seconds = (time.process_time() - started) / cell.images
        return torch.cat(images), torch.cat(cells) if cells else None, seconds

    def target(self, cell: Cell) -> TargetDistribution:
        """Return a cell's target in the judge's order of classes."""
        return parse_target(TARGETS[cell.target], self.judge.attributes)

    def _model(self, cell: Cell, seed: int, keep: list[Tensor]) -> Any:
        """Return the MODEL of one batch; ``keep`` receives the assigned cells."""
        from ...host.core.passes.batch_observers import batch_observers
        from ...host.core.patch import patch_model
        from ...host.guidance.apply import apply_guidance

        model, adp = self.beds[cell.bed].model, self.adps[cell.bed]
        if cell.kind in (BASE, MIXING):
            return model
        wanted = self.target(cell)
        if cell.kind == UNIVERSAL:
            cells = torch.tensor(drawn_cells(wanted, cell.batch, seed, cell.by_quota))
            keep.append(cells)
            return apply_universal(model, self._log_probability(wanted, cells), cell.strength)
        target = parse_target(TARGETS[cell.target], adp.attributes)

        def ended(run: GuidanceRun) -> None:
            if run.cells is not None:
                keep.append(reordered_cells(run.cells, run.target, wanted))

        if cell.kind in SOFT:
            return apply_guidance(model, adp, GuidanceSettings(target, cell.strength, seed, mode=cell.kind), ended)
        direction = {SAMPLE: GRADIENT, LATENT: MEAN}.get(cell.kind, CALIBRATED)
        fixed = None if cell.by_quota else drawn_cells(target, cell.batch, seed, False)
        settings = GuidanceSettings(target, cell.strength, seed, cells=fixed, mode=BY_QUOTA, direction=direction)
        if cell.kind == SAMPLE:
            return patch_model(model, lambda: SampleGuidance(adp, settings), batch_observers(None, ended))[0]
        return apply_guidance(model, adp, settings, ended)

    def _conditions(self, cell: Cell, seed: int, batch: int, keep: list[Tensor]) -> tuple[Any, Any]:
        """Return the positive and negative conditioning of a batch.

        With prompts, image i of a cell shows profession i mod 4, and mixing adds a class to the prompt.
        """
        bed = self.beds[cell.bed]
        if cell.bed != TEXT:
            return bed.positive, bed.negative
        professions = ATTRIBUTES["profession"]
        shown = [professions[(batch * cell.batch + i) % len(professions)] for i in range(cell.batch)]
        named: list[dict[str, str]] = [{}] * cell.batch
        if cell.kind == MIXING:
            target = self.target(cell)
            cells = drawn_cells(target, cell.batch, seed, cell.by_quota)
            keep.append(torch.tensor(cells))
            named = [dict(zip(target.attributes, target.cells[c], strict=True)) for c in cells]
        rows = [self._encoded(prompt_of(p, n)) for p, n in zip(shown, named, strict=True)]
        return [[torch.cat([r[0][0] for r in rows]), {"pooled_output": torch.cat([r[0][1]["pooled_output"] for r in rows])}]], bed.negative

    def _encoded(self, prompt: str) -> Any:
        """Encode a prompt as CLIP Text Encode does."""
        if prompt not in self._prompts:
            clip = self.beds[TEXT].clip
            self._prompts[prompt] = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        return self._prompts[prompt]

    def _labels(self) -> Any:
        """Return the labeller as a differentiable function of latents. It does not judge."""
        if self._score is None:
            from ...host.labels.classifier import HostClassifier
            from ...host.labels.differentiable_labels import DifferentiableLabels

            labeller = HostClassifier(weights.classifier(), weights.LABELLER.name)
            self._score = DifferentiableLabels(self.beds[UNCONDITIONAL].model, self.vae, labeller, self.judge.attributes)
        return self._score

    def _log_probability(self, target: TargetDistribution, cells: Tensor) -> Any:
        """Make the score of universal guidance for a batch.

        It maps denoised latents [N, C, H, W] to the sum of the log-probabilities of the images' classes.
        """
        labels, per_cell = self._labels(), [target.cell_classes(c) for c in cells.tolist()]
        classes = {a: torch.tensor([c[a] for c in per_cell]) for a in target.attributes}

        def score(denoised: Tensor) -> Tensor:
            logits = labels.logits(denoised)
            return sum(logits[a].log_softmax(-1).gather(1, k[:, None]).sum() for a, k in classes.items())

        return score
