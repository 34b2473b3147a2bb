"""The same images at a row of strengths, with the share of the class below where a classifier counted it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image as Picture
from PIL import ImageDraw
from torch import Tensor

from ..core.sheet import WHITE, text_width, tiles
from ..core.style import FAINT, GRID, INK, PALETTE, Image, font

PAD, GAP, TITLE, NOTE, HEAD, BAR, TEXT = 16, 6, 34, 24, 28, 46, 22
WIDTH, TALLEST = 960, 192
"""Width of the strip, about, and largest height of a single image, in pixels."""


def steer_strip(
    images: Tensor | ArrayLike,
    strengths: Sequence[float],
    title: str = "",
    note: str = "",
    shares: Sequence[float] | None = None,
    most: int = 8,
) -> Image:
    """Draw a column per strength and a row per image: uint8 [H, W, 3].

    images [P, N, 3, H, W], float in 0..1 or uint8, P strengths of the same N images, of which the first ``most`` are shown. shares [P] in
    0..1: drawn as bars below the columns. Raises ValueError where there is not one column per strength.
    """
    array = np.asarray(images.detach().cpu() if isinstance(images, Tensor) else images)
    if array.ndim != 5 or array.shape[2] != 3 or not array.shape[1] or len(array) != len(strengths) or not len(strengths):
        raise ValueError(
            f"a strip of a sweep needs images [P, N, 3, H, W], one column per strength; met {list(array.shape)} and {len(strengths)} "
            "strengths."
        )
    if shares is not None and len(shares) != len(strengths):
        raise ValueError(f"a strip of {len(strengths)} strengths needs as many shares; met {len(shares)}.")
    points, rows = len(strengths), min(most, array.shape[1])
    across = (WIDTH - 2 * PAD - GAP * (points - 1)) // points
    size = max(64, min(TALLEST, across))
    pictures = [tiles(array[p, :rows], size) for p in range(points)]
    w, h = pictures[0][0].size
    head = (TITLE if title else 0) + (NOTE if note else 0)
    step = max(w, 44) + GAP
    width = max(2 * PAD + points * step - GAP, *(2 * PAD + text_width(t, s) for t, s in ((title, 22), (note, 15)) if t), 0)
    top = PAD + head + HEAD
    grid = rows * (h + GAP) - GAP
    height = top + grid + PAD + (BAR + TEXT + GAP if shares is not None else 0)
    sheet = Picture.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((PAD, PAD - 4), title, INK, font(22))
    if note:
        draw.text((PAD, PAD - 4 + (TITLE - 2 if title else 0)), note, FAINT, font(15))
    for p, strength in enumerate(strengths):
        left, middle = PAD + p * step, PAD + p * step + (step - GAP) / 2
        draw.text((middle, PAD + head), f"{strength:+g}" if strength else "0", INK, font(17), anchor="ma")
        for row, picture in enumerate(pictures[p]):
            sheet.paste(picture, (round(middle - w / 2), top + row * (h + GAP)))
        if shares is not None:
            _bar(draw, left, left + step - GAP, top + grid + GAP, float(shares[p]))
    return np.array(sheet)


def _bar(draw: ImageDraw.ImageDraw, left: int, right: int, top: int, share: float) -> None:
    """Draw a bar that is as high as a share, with its number below."""
    draw.rectangle((left, top, right - 1, top + BAR - 1), fill=GRID)
    full = round(share * BAR)
    if full:
        draw.rectangle((left, top + BAR - full, right - 1, top + BAR - 1), fill=PALETTE[0])
    draw.text(((left + right) / 2, top + BAR + 3), f"{share:.0%}", INK, font(15), anchor="ma")
