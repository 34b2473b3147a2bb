"""Sample trials with the host's sampler: whole batches, patched or plain, with progress, previews and interruption."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import comfy.model_management
import folder_paths
import latent_preview
import torch
from torch import Tensor

from ...methods.core.batch_run import BatchRun
from ...methods.core.trials import TrialReadings
from .files import check_file_name
from .progress import WorkStage
from .sampling import SamplerSettings, draw
from .types import Conditioning, Latent, Model, Vae
from .versions import fitting_latent

TRIALS_FOLDER = "output/equipoise/calibration"

Judge = Callable[[Tensor], dict[str, Tensor]]
"""Reads latent samples [N, ...]: attribute -> class probabilities [N, K] on the CPU, in the class order of the edit."""


class ImageClassifier(Protocol):
    """A classifier that reads attributes from images."""

    name: str
    attributes: dict[str, tuple[str, ...]]

    def fingerprint(self) -> str:
        """Return a text that changes with the classifier."""

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        """Compute class probabilities of an IMAGE: attribute -> [N, K]."""


class BatchPrompts(Protocol):
    """Prompts that batches use in turn."""

    facts: Mapping[str, Any]

    def at(self, batch: int) -> tuple[Conditioning, Conditioning, str]:
        """Return positive, negative and prompt of a batch."""

log = logging.getLogger("equipoise")


@dataclass(frozen=True)
class SamplingInputs:
    """Model, prompts, latent and sampler settings of a node that samples images."""

    model: Model
    """MODEL without the edit."""
    positive: Conditioning
    """CONDITIONING of every batch."""
    negative: Conditioning
    """Negative CONDITIONING of every batch."""
    latent: Latent
    """LATENT of one batch."""
    sampler: SamplerSettings
    """Seed of the first batch, steps, cfg, sampler and scheduler."""
    prompts: BatchPrompts | None = None
    """Prompts to use in turn, in place of ``positive`` and ``negative``."""

    def conditions(self, batch: int) -> tuple[Conditioning, Conditioning]:
        """Return positive and negative of a batch."""
        if self.prompts is None:
            return self.positive, self.negative
        positive, negative, _ = self.prompts.at(batch)
        return positive, negative

    def batches(self, images: int) -> int:
        """Return the number of batches that hold so many images."""
        return -(-images // self.start().shape[0])

    def start(self) -> Tensor:
        """Return the latents of one batch, in the channels of the model."""
        return fitting_latent(self.model, self.latent)


@dataclass(frozen=True)
class TrialInputs:
    """Settings of the trials of a calibration."""

    sampling: SamplingInputs
    """Model, prompts, latent and sampler settings."""
    images: int
    """Images per trial, rounded up to whole batches."""
    name: str
    """Name under which the trials are saved."""
    vae: Vae | None = None
    """Decodes images for the classifier."""
    classifier: ImageClassifier | None = None
    """Judges the images; None if the ADP itself judges."""


def log_path(name: str) -> Path:
    """Return the file that holds the trials of a calibration.

    Raises ValueError for a name that cannot be stored.
    """
    name = name.strip()
    check_file_name(name, "a calibration", TRIALS_FOLDER)
    return Path(folder_paths.get_output_directory()) / "equipoise" / "calibration" / f"{name}.json"


class HostTrials:
    """Samples and judges whole trials, with progress over all of them, previews and interruption."""

    def __init__(self, inputs: SamplingInputs, images: int, judge: Judge) -> None:
        self.inputs, self.judge = inputs, judge
        self.model, self.latent, self.sampler = inputs.model, inputs.latent, inputs.sampler
        self.start, self.batches = inputs.start(), inputs.batches(images)
        self._previewer = latent_preview.get_previewer(self.model.load_device, self.model.model.latent_format)
        self.expect(1)

    @property
    def images(self) -> int:
        """Images of one trial."""
        return self.batches * self.start.shape[0]

    def expect(self, trials: int) -> None:
        """Start the progress bar of so many trials."""
        self._total, self._done = trials * self.batches * self.sampler.steps, 0
        self._stage = WorkStage("Trials", self._total)
        if trials > 1:
            log.info("Trials: up to %d of %d images each, %s steps in all.", trials, self.images, f"{self._total:,}")

    def finish(self) -> None:
        """Fill the bar: trials that were not needed count as done."""
        self._stage.update(self._total)

    def run(self, patched: Callable[[Callable[[BatchRun], None]], Model] | None) -> TrialReadings:
        """Sample and judge one trial.

        ``patched`` returns the MODEL of a batch. It gets a function to call with every run that ended. None samples plain images.
        """
        runs: list[BatchRun] = []
        parts: list[dict[str, Tensor]] = []
        for batch in range(self.batches):
            comfy.model_management.throw_exception_if_processing_interrupted()
            model = self.model if patched is None else patched(lambda run: runs.append(run.summary()))
            parts.append(self.judge(self._batch(model, batch)))
        read = {a: torch.cat([p[a] for p in parts]) for a in parts[0]}
        if patched is None:
            return TrialReadings(read)
        n = self.start.shape[0]
        cells = [torch.full((n,), -1) if run.cells is None else run.cells for run in runs]
        return TrialReadings(read, torch.cat(cells))

    def _batch(self, model: Model, batch: int) -> Tensor:
        s = self.sampler
        seed = (s.seed + batch) & 0xFFFFFFFFFFFFFFFF
        positive, negative = self.inputs.conditions(batch)
        begun = self._done

        def step(number: int, x0: Tensor, x: Tensor, total: int) -> None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", x0) if self._previewer else None
            self._stage.update(min(begun + number + 1, self._total), preview=preview)

        samples = draw(model, replace(s, seed=seed), positive, negative, {**self.latent, "samples": self.start}, step)
        self._done = begun + s.steps
        return samples
