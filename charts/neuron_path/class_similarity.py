"""How alike the neuron paths of classes are: a heat map of cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.missing import chart
from ..core.style import FAINT, INK, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, HEAD, FOOT, CELL = 960, 24, 76, 16, 96
MOST_CELL_TEXT = 12


@chart
def class_similarity_chart(classes: Sequence[str], cosine: NDArray[np.float32], note: str = "") -> Image:
    """Draw the similarity of every two classes' paths: uint8 [H, 960, 3].

    cosine [C, C], 0 (no neuron in common) to 1 (the same paths).

    Raises ValueError where there are fewer than two classes, or another number of cosines.
    """
    if len(classes) < 2 or cosine.shape != (len(classes), len(classes)):
        raise ValueError(f"a map of similarity needs two or more classes and a cosine for each pair; met {len(classes)}, {cosine.shape}.")
    names = [c if len(c) <= 22 else f"{c[:21]}..." for c in classes]
    left = MARGIN + 20 + 11 * max(map(len, names))
    size = min(CELL, (WIDTH - left - MARGIN) // len(classes))
    side = size * len(classes)
    figure = new_figure(WIDTH, HEAD + 36 + side + FOOT)
    write(figure, MARGIN, 10, "how alike the classes' paths are", 20, weight="bold")
    write(figure, MARGIN, 40, note, 15, FAINT)
    axes = add_axes(figure, left, HEAD + 30, side, side)
    axes.imshow(cosine, cmap="Blues", vmin=0, vmax=1.25, interpolation="nearest", aspect="auto")
    axes.set_xticks(range(len(names)), names, fontsize=points(15), color=INK, parse_math=False)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), names, fontsize=points(15), color=INK, parse_math=False)
    if len(names) * max(map(len, names)) * 9 > side:
        axes.tick_params(axis="x", labelrotation=20)
    if len(names) <= MOST_CELL_TEXT:
        for (row, column), value in np.ndenumerate(cosine):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=points(16), color="white" if value > 0.8 else INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return pixels(figure)
