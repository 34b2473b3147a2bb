"""Colours, a figure without global state, and its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .missing import MatplotlibMissing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
"""[H, W, 3]."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#4D4D4D")
"""Okabe and Ito's colours, which people with the common colour-vision deficiencies can tell apart."""
INK, FAINT, GRID = "#1A1A1A", "#5F5F5F", "#DDDDDD"
DPI = 100


def points(pixels: float) -> float:
    """Font sizes and line widths are given in pixels here; matplotlib wants points."""
    return pixels * 72 / DPI


def new_figure(width: int, height: int) -> Figure:
    """An empty white figure of so many pixels, drawn by Agg; pyplot and its global state stay out.

    Raises MatplotlibMissing, which :func:`.missing.chart` turns into a picture.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MatplotlibMissing(width, error) from error

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the top left corner."""
    w, h = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=points(16), colors=INK, length=0, pad=points(9))
    axes.set_axisbelow(True)
    return axes


def write(figure: Figure, x: float, y: float, text: str, size: float = 16, colour: str = INK, **options: object) -> None:
    """Text at a place given in pixels from the top left corner; ``size`` in pixels."""
    w, h = figure.get_size_inches() * DPI
    figure.text(x / w, 1 - y / h, text, fontsize=points(size), color=colour, va=options.pop("va", "top"), parse_math=False, **options)


def pixels(figure: Figure) -> Image:
    """Draw a figure: uint8 [H, W, 3]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
