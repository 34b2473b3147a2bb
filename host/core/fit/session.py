"""What the two ways of learning directions share: names and checkpoints, the site, the file that results, memory that does not suffice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ....methods.core.checkpoint import RESUMED, STALE
from ....methods.core.trainer import VectorFit
from ....methods.guidance.edit_file import with_alternative
from ....methods.guidance.fit_moves import Diffusion, FitSettings, finished_moves
from ....models.adp import AdpFile, AttributePredictor
from ..names import storable
from ..sites import base_model, lowest_level_site, site_channels
from ..versions import resident
from .differentiable import Differentiable, load_whole

log = logging.getLogger("equipoise")
PLACE = "output/equipoise/learning"
AUTO = "auto"


@dataclass(frozen=True)
class Learned:
    """``file``: with the new moves among its alternatives; ``lines``: a report; ``curve``: (step, figure -> value), averaged over short
    stretches of steps."""

    file: AdpFile
    lines: list[str]
    curve: list[tuple[int, dict[str, float]]]


def learning_path(name: str) -> Path:
    """Checkpoint of a fit. Raises ValueError for a name that is a path."""
    name = name.strip()
    if not storable(name):
        raise ValueError(
            f"'{name[:60]}' cannot be the name of what is learned: use letters, digits, spaces, dashes and single dots, without "
            f"separators; it goes on from {PLACE} when it was interrupted."
        )
    return Path(folder_paths.get_output_directory()) / "equipoise" / "learning" / f"{name}.safetensors"


def chosen_site(model: Any, site: str) -> tuple[str, int]:
    """A site by its name, or "auto", and its width. Raises ValueError where the model has no such site."""
    site = site.strip() or AUTO
    site = lowest_level_site(model) if site == AUTO else site
    widths = site_channels(model)
    if site not in widths:
        raise ValueError(f"this MODEL has no site '{site}': write {AUTO}, or one of {', '.join(widths)}.")
    return site, widths[site]


def begin(fit: VectorFit, name: str, facts: Mapping[str, Any]) -> str:
    """Resume the fit ``name`` if it had these settings; return what to tell the user, or "".

    The fit then moves the node's bar, and the host can interrupt it after every step.
    """
    fit.path, fit.key = learning_path(name), json.dumps(facts, sort_keys=True)
    resumed = fit.resume()
    bar = comfy.utils.ProgressBar(fit.total)

    def after_step(step: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step, total)

    fit.after_step = after_step
    if resumed == STALE:
        return "begun anew, as an earlier run of this name had other settings"
    if resumed != RESUMED:
        return ""
    return "was learned before, and not again" if fit.done else f"went on from step {fit.step} of {fit.total}"


@contextmanager
def gradients(batch: int) -> Iterator[None]:
    """Out of the host's inference mode. Raises ValueError, in a sentence, where memory does not suffice."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        out = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)
        if not out:
            raise
        raise ValueError(f"memory does not suffice to learn with a batch of {batch}: lower 'batch', or use smaller images.") from error


def loaded(model: Any, conditions: Sequence[Any], shape: Sequence[int]) -> Differentiable:
    """The MODEL loaded whole, as a differentiable function. ``shape``: of a batch of latents."""
    patcher = resident(model)
    load_whole([patcher], 2 * model.model.memory_required([2 * shape[0], *shape[1:]]))
    return Differentiable(patcher, conditions)


def diffusion_of(
    network: Differentiable, logits: Callable[[Tensor], dict[str, Tensor]] | None = None, judged: tuple[str, ...] = ()
) -> Diffusion:
    """As the fit needs it: a v-prediction over the model's own noise levels."""
    a = network.alphas_cumprod

    def wanted(clean: Tensor, noise: Tensor, t: int) -> Tensor:
        return a[t].sqrt() * noise - (1 - a[t]).sqrt() * clean

    def clean(x: Tensor, output: Tensor, t: int) -> Tensor:
        return a[t].sqrt() * x - (1 - a[t]).sqrt() * output

    return Diffusion(network.velocity, wanted, clean, logits or (lambda latents: {}), a, judged, network.scale, network.device)


def plain_predictor(predictor: AttributePredictor | None) -> AttributePredictor | None:
    """A copy without inference tensors."""
    if predictor is None:
        return None
    copy = AttributePredictor(predictor.attributes, predictor.channels, predictor.knots.clone(), predictor.kind, predictor.hidden)
    copy.load_state_dict({k: v.clone() for k, v in predictor.state_dict().items()})
    return copy.eval().requires_grad_(False)


def finish(
    fit: VectorFit,
    sites: Mapping[str, tuple[str, int]],
    source: str,
    adp: AdpFile | None,
    model: Any,
    classes: Mapping[str, tuple[str, ...]],
    settings: FitSettings,
    lines: list[str],
) -> Learned:
    """Moves of a fit that has ended, in a file, with the report's last lines."""
    with torch.inference_mode(False):
        moves = finished_moves(fit, sites, source)
    curve = fit.curve()
    first, last = curve[0][1], curve[-1][1]
    for column in fit.columns:
        values = [v[column] for _, v in curve if column in v]
        if values:
            lines.append(f"{column}: {first.get(column, values[0]):.4g} in the first steps, {last.get(column, values[-1]):.4g} in the last")
    record = {"steps": settings.steps, "batch": settings.batch, "seed": settings.seed}
    file = adp or AdpFile(None, {}, base_model(model) or "")
    for attribute, move in moves.items():
        low, high = float(move.sizes.amax(1).min()), float(move.sizes.max())
        form = "told by the reading" if move.vectors.shape[2] > 1 else "one vector per class, assigned seeded"
        lines.append(f"{attribute} at {move.site}: steps of {low:.3f} to {high:.3f} norms of h by noise level ({form})")
        file = with_alternative(file, file.base_model, attribute, classes[attribute], move, {**record, "lines": lines[-1:]})
    log.info("learned %s: %s", ", ".join(moves), "; ".join(lines))
    return Learned(file, lines, curve)


def module_mark(module: torch.nn.Module) -> str:
    """A hash of a few numbers of every weight, by which another file of the same kind is known."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if value.is_floating_point():
            digest.update(name.encode())
            digest.update(value.detach().flatten()[:8].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
