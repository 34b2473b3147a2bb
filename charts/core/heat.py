"""Small pictures for rows of a chart, and the heat of an activation laid over them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

HOT = np.array([214, 0, 110], dtype=np.float32)
"""Colour of high activation: one that few pictures have."""


def fitted(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Fit a picture [H, W, 3] in 0..255 into a square of ``side`` pixels.

    Small pictures are enlarged by nearest neighbour, so that the reader sees the pixels that were made.
    """
    h, w = picture.shape[:2]
    scale = side / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    how = Picture.Resampling.NEAREST if scale >= 1 else Picture.Resampling.LANCZOS
    return np.asarray(Picture.fromarray(picture.round().astype(np.uint8)).resize(size, how), dtype=np.float32)


def heat_over(image: NDArray[np.float32], heat: NDArray[np.float32], most: float) -> NDArray[np.float32]:
    """Lay heat [h, w] over an image float32 [H, W, 3] in 0..255.

    Cold parts turn paler, hot parts crimson.
    """
    size = (image.shape[1], image.shape[0])
    share = np.asarray(Picture.fromarray((heat / most).clip(0, 1).astype(np.float32)).resize(size, Picture.Resampling.BICUBIC))
    share = share.clip(0, 1)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    pale = 0.35 * image + 0.4 * grey + 0.25 * 255
    return pale * (1 - 0.7 * share) + HOT * (0.7 * share)


def pasted(drawn: NDArray[np.uint8], tiles: list[tuple[int, int, NDArray[np.float32]]]) -> NDArray[np.uint8]:
    """Paste pictures into a drawn figure, in place.

    Pictures are (top, left, [h, w, 3] in 0..255). Their pixels stay squares.
    """
    for top, left, tile in tiles:
        drawn[top : top + tile.shape[0], left : left + tile.shape[1]] = tile.round().clip(0, 255).astype(np.uint8)
    return drawn
