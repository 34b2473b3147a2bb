"""Losses of a fit of directions by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .curves import training_curves
from .style import Image


def learning_curves(curve: Sequence[tuple[int, Mapping[str, float]]], title: str) -> Image:
    """uint8 [520, 960, 3], a line per figure. curve: (step, figure -> value). Raises ValueError where there is nothing to draw."""
    names = dict.fromkeys(name for _, figures in curve for name in figures)
    logs = {name: [{"step": step, "loss": figures[name]} for step, figures in curve if name in figures] for name in names}
    return training_curves(logs, title)
