"""What stands in for a chart where matplotlib cannot be imported: a picture that says so, and what to do."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import ParamSpec

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw

from .fonts import font

log = logging.getLogger("equipoise")
P = ParamSpec("P")
Image = NDArray[np.uint8]
PAD, SIZE, LINE = 24, 18, 27
BACKGROUND, INK = "#FFF6DF", "#1A1A1A"


class MatplotlibMissing(ImportError):
    """``width``: pixels of the picture that was to be drawn."""

    def __init__(self, width: int, cause: ImportError) -> None:
        super().__init__(
            f"This chart could not be drawn, for matplotlib cannot be imported ({cause}). Numbers, files and texts are complete without "
            f"it. To get charts, run: {sys.executable} -m pip install matplotlib - and restart ComfyUI."
        )
        self.width = width


def chart(draw: Callable[P, Image]) -> Callable[P, Image]:
    """For a function that draws with matplotlib: without it, a picture that says what is missing is returned, and logged as a warning.

    It is no error: a node's numbers and files do not depend on its picture, and an hour of training is not lost for one.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Image:
        try:
            return draw(*args, **kwargs)
        except MatplotlibMissing as missing:
            log.warning("%s", missing)
            return notice(str(missing), missing.width)

    return drawn


def notice(text: str, width: int) -> Image:
    """Text on a coloured ground, broken into lines: uint8 [H, width, 3]."""
    letters, lines = font(SIZE), [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and letters.getlength(longer) > width - 2 * PAD:
            lines.append(word)
        else:
            lines[-1] = longer
    sheet = Picture.new("RGB", (width, 2 * PAD + LINE * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((PAD, PAD + LINE * i), line, INK, letters)
    return np.asarray(sheet)
