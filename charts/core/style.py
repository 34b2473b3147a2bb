"""Colours, the font, a figure without global state, and its pixels."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
"""[H, W, 3]."""

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#4D4D4D")
"""Okabe and Ito's colours, which people with the common colour-vision deficiencies can tell apart."""
INK, FAINT, GRID = "#1A1A1A", "#5F5F5F", "#DDDDDD"
DPI = 100


class MatplotlibMissing(ImportError):
    """Matplotlib cannot be imported.

    ``width``: pixels of the picture that was to be drawn.
    """

    def __init__(self, width: int, cause: ImportError) -> None:
        super().__init__(
            f"This chart could not be drawn, because matplotlib cannot be imported ({cause}). Numbers, files and texts are complete "
            f"without it. To get charts, run: {sys.executable} -m pip install matplotlib - and restart ComfyUI."
        )
        self.width = width


def font(size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans at a size in pixels.

    Pillow's own font if matplotlib is missing.
    """
    try:
        from matplotlib import get_data_path
    except ImportError:
        return ImageFont.load_default(size)
    # Matplotlib's own copy of DejaVu: it is there wherever the charts are, and knows more scripts than Pillow's default.
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def points(pixels: float) -> float:
    """Convert pixels to points, for matplotlib's font sizes and line widths."""
    return pixels * 72 / DPI


def new_figure(width: int, height: int) -> Figure:
    """Make an empty white figure of this size in pixels.

    Drawn by Agg; pyplot and its global state are not used.

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
    """Add axes at a position in pixels from the top left corner."""
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
    """Write text at a position in pixels from the top left corner.

    ``size`` in pixels.
    """
    w, h = figure.get_size_inches() * DPI
    figure.text(x / w, 1 - y / h, text, fontsize=points(size), color=colour, va=options.pop("va", "top"), parse_math=False, **options)


def pixels(figure: Figure) -> Image:
    """Draw a figure: uint8 [H, W, 3]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
