"""Replace a chart by a notice if matplotlib cannot be imported."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from .style import INK, Image, MatplotlibMissing, font

log = logging.getLogger("equipoise")
P = ParamSpec("P")
PAD, SIZE, LINE = 24, 18, 27
BACKGROUND = "#FFF6DF"


def chart(draw: Callable[P, Image]) -> Callable[P, Image]:
    """Decorate a function that draws, so that it also works without matplotlib.

    It then returns a notice and logs a warning.

    This is not an error, because a node's numbers and files do not depend on its picture.
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
    """Write text on a coloured ground, broken into lines: uint8 [H, width, 3]."""
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
