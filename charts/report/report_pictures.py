"""Which images a fairness report shows: some of every class, small enough for a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from torch import Tensor

from ...metrics.panels import Panel
from .report_blocks import Pictures, Sheet

LONGEST = 128
"""Pixels of the longer side at most."""


def class_sheets(
    panel: Panel, base: Tensor, steered: Tensor, base_cells: NDArray[np.int64], steered_cells: NDArray[np.int64], most: int
) -> list[Sheet]:
    """Make a sheet per class (or cell) of a panel.

    It shows the first ``most`` images of each set that are read as that class.

    base [N, H, W, 3 or 4], steered [M, H, W, 3 or 4], float in 0..1, of any two sizes; cells [N], [M]: the class of each.
    Nothing for most < 1.
    """
    if most < 1:
        return []
    return [
        Sheet(
            f"{panel.name}: {name}",
            shrunk(base, np.flatnonzero(base_cells == index)[:most].tolist()),
            int((base_cells == index).sum()),
            len(base_cells),
            shrunk(steered, np.flatnonzero(steered_cells == index)[:most].tolist()),
            int((steered_cells == index).sum()),
            len(steered_cells),
        )
        for index, name in enumerate(panel.report.classes)
    ]


def shrunk(images: Tensor, chosen: Sequence[int]) -> Pictures | None:
    """Shrink the chosen images of [N, H, W, C] to at most 128 pixels.

    uint8 [n, 3, h, w]; small ones stay as they are; None if none is chosen.
    """
    small = []
    for index in chosen:
        pixels = (images[index, ..., :3].detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
        picture = Picture.fromarray(np.ascontiguousarray(pixels))
        picture.thumbnail((LONGEST, LONGEST), Picture.Resampling.LANCZOS)
        small.append(np.asarray(picture).transpose(2, 0, 1))
    return np.stack(small) if small else None
