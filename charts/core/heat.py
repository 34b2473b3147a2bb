"""Heat maps over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

HOT = np.array([214, 0, 110], dtype=np.float32)
"""Colour of high activation; few pictures have it."""


def heat_over(image: NDArray[np.float32], heat: NDArray[np.float32], most: float) -> NDArray[np.float32]:
    """Lay heat [h, w] over an image float32 [H, W, 3] in 0..255: cold parts pale, hot parts turn crimson."""
    size = (image.shape[1], image.shape[0])
    share = np.asarray(Picture.fromarray((heat / most).clip(0, 1).astype(np.float32)).resize(size, Picture.Resampling.BICUBIC))
    share = share.clip(0, 1)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    pale = 0.35 * image + 0.4 * grey + 0.25 * 255
    return pale * (1 - 0.7 * share) + HOT * (0.7 * share)
