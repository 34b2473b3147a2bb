"""What both ways of learning moves share: the model as a fit sees it, and the ADP that results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...methods.adp.edit_file import with_alternative
from ...methods.core.trainer import VectorFit
from ...methods.guidance.fit_moves import Diffusion, FitSettings, finished_moves
from ...models.adp import AdpFile
from ..core.fit.differentiable import Differentiable
from ..core.fit.session import FitSession

log = logging.getLogger("equipoise")


@dataclass(frozen=True)
class LearnedMoves:
    """Moves that a fit found."""

    file: AdpFile
    """The ADP, with the new moves among its alternatives."""
    lines: list[str]
    """Report."""
    curve: list[tuple[int, dict[str, float]]]
    """Steps and figures, averaged over short stretches of steps."""


def host_diffusion(
    network: Differentiable, logits: Callable[[Tensor], dict[str, Tensor]] | None = None, judged: tuple[str, ...] = ()
) -> Diffusion:
    """Present a host MODEL to a fit, as a v-prediction over its noise levels."""
    a = network.alphas_cumprod

    def wanted(clean: Tensor, noise: Tensor, t: int) -> Tensor:
        return a[t].sqrt() * noise - (1 - a[t]).sqrt() * clean

    def clean(x: Tensor, output: Tensor, t: int) -> Tensor:
        return a[t].sqrt() * x - (1 - a[t]).sqrt() * output

    return Diffusion(network.velocity, wanted, clean, logits or (lambda latents: {}), a, judged, network.scale, network.device)


def learned_moves(
    session: FitSession,
    fit: VectorFit,
    sites: Mapping[str, tuple[str, int]],
    source: str,
    file: AdpFile,
    classes: Mapping[str, tuple[str, ...]],
    settings: FitSettings,
) -> LearnedMoves:
    """Put the moves of a finished fit into a file, and complete the report."""
    with torch.inference_mode(False):
        moves = finished_moves(fit, sites, source)
    session.report_losses(fit)
    lines = session.lines
    record: dict[str, Any] = {"steps": settings.steps, "batch": settings.batch, "seed": settings.seed}
    for attribute, move in moves.items():
        low, high = float(move.sizes.amax(1).min()), float(move.sizes.max())
        form = "depending on the reading" if move.by_reading else "one vector per class, assigned seeded"
        lines.append(f"{attribute} at {move.site}: steps of {low:.3f} to {high:.3f} norms of h by noise level ({form})")
        file = with_alternative(file, file.base_model, attribute, classes[attribute], move, {**record, "lines": lines[-1:]})
    log.info("learned %s: %s", ", ".join(moves), "; ".join(lines))
    return LearnedMoves(file, lines, fit.curve())
