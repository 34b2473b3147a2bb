"""Run a named fit: checkpoint and resume, progress, memory errors and report. Every node that learns an edit uses it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from torch import Tensor

from ....methods.core.checkpoint import RESUMED, STALE
from ....methods.core.trainer import VectorFit
from ..files import check_file_name
from ..progress import WorkStage
from ..sites import lowest_level_site, site_channels
from ..types import Clip, Conditioning, Model, ModelInput
from ..versions import resident
from .differentiable import Differentiable, load_whole

LEARNING_FOLDER = "output/equipoise/learning"
AUTO = "auto"

log = logging.getLogger("equipoise")


def learning_path(name: str) -> Path:
    """Return the file of a fit's checkpoint.

    Raises ValueError for a name that cannot be stored.
    """
    name = name.strip()
    check_file_name(name, "a fit", LEARNING_FOLDER)
    return Path(folder_paths.get_output_directory()) / "equipoise" / "learning" / f"{name}.safetensors"


class FitSession:
    """One fit under a name: the same settings under the same name resume it.

    ``node``: name of the node in ComfyUI's log. Raises ValueError for a name that cannot be stored.
    """

    def __init__(self, node: str, name: str, steps: int, batch: int) -> None:
        self.node, self.path = node, learning_path(name)
        self.steps, self.batch = steps, batch
        self.lines: list[str] = []
        self._started = time.monotonic()

    def network(self, model: Model, conditions: Sequence[Mapping[str, ModelInput]], latent: Sequence[int]) -> Differentiable:
        """Load the MODEL whole, as a differentiable function.

        ``latent``: shape of one latent, [C, H, W].
        """
        patcher = resident(model)
        load_whole([patcher], 2 * model.model.memory_required([2 * self.batch, *latent]))
        return Differentiable(patcher, conditions)

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """Leave the host's inference mode. Raises ValueError if memory does not suffice."""
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        except (torch.OutOfMemoryError, RuntimeError) as error:
            out = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)
            if not out:
                raise
            raise ValueError(
                f"not enough memory to learn with a batch of {self.batch}: lower 'batch', or use smaller images."
            ) from error

    def resume(self, fit: VectorFit, facts: Mapping[str, Any]) -> None:
        """Resume a fit that an earlier run saved with the same ``facts``.

        The report says whether it resumed. The fit then moves the node's bar, and the host can interrupt it after every step.
        """
        fit.path, fit.key = self.path, json.dumps(facts, sort_keys=True)
        resumed = fit.resume()
        if resumed == RESUMED and fit.done:
            self.lines.append("already learned in an earlier run, so nothing was computed")
        elif resumed == RESUMED:
            self.lines.append(f"resumed at step {fit.step} of {fit.total}")
        elif resumed == STALE:
            self.lines.append("started again, because the earlier run with this name had other settings")
        images = (fit.total - fit.step) * self.batch
        log.info("%s: fits %d steps of %d images: %s passes forward and back.", self.node, fit.total - fit.step, self.batch, f"{images:,}")
        stage = WorkStage(f"{self.node}, fit", fit.total)

        def after_step(step: int, total: int) -> None:
            stage.update(step, total)

        fit.after_step = after_step

    def report_duration(self, samples: str) -> None:
        """Report steps, batch and time. ``samples``: what a batch holds ("images")."""
        self.lines.append(f"{self.steps} steps of {self.batch} {samples}; {time.monotonic() - self._started:.0f} s")

    def report_losses(self, fit: VectorFit) -> None:
        """Report every figure in the first and in the last steps."""
        for column in fit.columns:
            values = [v[column] for _, v in fit.curve() if column in v]
            if values:
                self.lines.append(f"{column}: {values[0]:.4g} in the first steps, {values[-1]:.4g} in the last")


def chosen_site(model: Model, site: str) -> tuple[str, int]:
    """Return the name and the width of a site, by its name or "auto".

    Raises ValueError if the model has no such site.
    """
    site = site.strip() or AUTO
    site = lowest_level_site(model) if site == AUTO else site
    widths = site_channels(model)
    if site not in widths:
        raise ValueError(f"this MODEL has no site '{site}': write {AUTO}, or one of {', '.join(widths)}.")
    return site, widths[site]


def encoded_prompts(clip: Clip, prompts: Sequence[str]) -> tuple[list[Conditioning], Tensor]:
    """Encode every different prompt once.

    Return the CONDITIONINGs, and the index of each prompt's, int64 [N].
    """
    different = list(dict.fromkeys(prompts))
    conditionings = []
    for prompt in different:
        comfy.model_management.throw_exception_if_processing_interrupted()
        conditionings.append(clip.encode_from_tokens_scheduled(clip.tokenize(prompt)))
    with torch.inference_mode(False):
        return conditionings, torch.tensor([different.index(p) for p in prompts])
