"""Trials through the host's sampler: whole batches of images, patched or plain, with progress, previews and interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.utils
import folder_paths
import latent_preview
import torch
from torch import Tensor

from ...methods.core.batch_run import BatchRun
from ...methods.core.trials import TrialReadings
from ..data.record_samples import GivenConditions, PromptConditions
from ..labels.classifier import HostClassifier
from .names import storable
from .sampling import SamplerSettings
from .versions import fitting_latent

PLACE = "output/equipoise/calibration"

Judge = Callable[[Tensor], dict[str, Tensor]]
"""Latent samples [N, ...] -> class probabilities on the CPU, attribute -> [N, K], classes in the order of whoever asks."""


def log_path(name: str) -> Path:
    """Where the trials of a calibration are written down. Raises ValueError for a name that is a path."""
    name = name.strip()
    if not storable(name):
        raise ValueError(
            f"'{name[:60]}' cannot be the name of a calibration: use letters, digits, spaces, dashes and single dots, without separators; "
            f"its trials are kept in {PLACE}."
        )
    return Path(folder_paths.get_output_directory()) / "equipoise" / "calibration" / f"{name}.json"


class HostTrials:
    """Sampling of whole trials, with progress over all of them, previews and interruption."""

    def __init__(
        self,
        model: Any,
        conditions: PromptConditions | GivenConditions,
        latent: dict[str, Any],
        sampler: SamplerSettings,
        batches: int,
        trials: int,
    ) -> None:
        self.model, self.conditions, self.latent = model, conditions, latent
        self.sampler, self.batches = sampler, batches
        self.start = fitting_latent(model, latent)
        self.judge: Judge = lambda samples: {}
        self._bar = comfy.utils.ProgressBar(max(1, trials * batches * sampler.steps))
        self._total, self._done = trials * batches * sampler.steps, 0
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    @property
    def images(self) -> int:
        return self.batches * self.start.shape[0]

    def finish(self) -> None:
        """Trials that were not needed count as done."""
        self._bar.update_absolute(self._total, self._total)

    def run(self, patched: Callable[[Callable[[BatchRun], None]], Any] | None) -> TrialReadings:
        """A trial with MODEL as ``patched(keep)`` gives it, ``keep`` being told of every run that ended (None: as it is)."""
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

    def _batch(self, model: Any, batch: int) -> Tensor:
        s = self.sampler
        seed = (s.seed + batch) & 0xFFFFFFFFFFFFFFFF
        positive, negative, _ = self.conditions.at(batch)
        noise = comfy.sample.prepare_noise(self.start, seed, self.latent.get("batch_index"))
        begun = self._done

        def step(number: int, x0: Tensor, x: Tensor, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            preview = self._previewer.decode_latent_to_preview_image("JPEG", x0) if self._previewer else None
            self._bar.update_absolute(min(begun + number + 1, self._total), self._total, preview)

        samples = comfy.sample.sample(
            model,
            noise,
            s.steps,
            s.cfg,
            s.sampler_name,
            s.scheduler,
            positive,
            negative,
            self.start,
            denoise=s.denoise,
            noise_mask=self.latent.get("noise_mask"),
            callback=step,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        self._done = begun + s.steps
        return samples


def classifier_judge(vae: Any, classifier: HostClassifier, classes: Mapping[str, Sequence[str]]) -> Judge:
    """Decoded latents as a classifier reads them, these attributes with their classes in this order.

    Raises ValueError where the classifier does not know an attribute with its classes.
    """
    for attribute, wanted in classes.items():
        if set(classifier.attributes.get(attribute, ())) != set(wanted):
            known = "; ".join(f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items())
            raise ValueError(
                f"the classifier '{classifier.name}' cannot judge '{attribute}' with the classes {', '.join(wanted)}; it knows "
                f"{known}: connect one that does, or none to let the ADP itself judge."
            )

    def judge(samples: Tensor) -> dict[str, Tensor]:
        read = classifier.probabilities(vae.decode(samples))
        for a, order in classes.items():
            read[a] = read[a][:, [classifier.attributes[a].index(c) for c in order]]
        return read

    return judge
