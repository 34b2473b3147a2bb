"""What excites a neuron, and what does not: images in the order of its activation, with the heat of the unit at their patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..core.heat import fitted, heat_over, pasted
from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, TITLE, HEAD, PAD, FOOT = 960, 24, 60, 26, 14, 34
NAME, TILE, TILE_GAP, SCORE = 96, 78, 4, 132
FIT = 4
"""Images of each end of a row."""


@dataclass(frozen=True)
class NeuronRow:
    """One neuron and the images at both ends of its activation."""

    name: str
    """Name of the neuron."""
    top: NDArray[np.float32]
    """Images with the highest activation first, float32 [n, H, W, 3] in 0..1."""
    bottom: NDArray[np.float32]
    """Images with the lowest activation first."""
    heat_top: NDArray[np.float32]
    """Heat of the highest, [n, h, w], not negative."""
    heat_bottom: NDArray[np.float32]
    """Heat of the lowest."""
    values_top: Sequence[float]
    """Activations of the highest, [n]."""
    values_bottom: Sequence[float]
    """Activations of the lowest."""
    by_class: Mapping[str, float] = field(default_factory=dict)
    """Label -> mean activation."""


@chart
def gallery_chart(rows: Sequence[NeuronRow], title: str = "neuron gallery", overlay: bool = True) -> Image:
    """Draw a row of images per neuron: uint8 [H, 960, 3].

    At most 4 images of each end.

    Heat has one scale for a row.

    Raises ValueError without rows, or where images and heat do not belong together.
    """
    if not rows:
        raise ValueError("a gallery needs at least one neuron; met none.")
    for r in rows:
        if len(r.top) != len(r.heat_top) or len(r.bottom) != len(r.heat_bottom) or not len(r.top):
            raise ValueError(f"the gallery's row '{r.name}' needs images and as many maps of heat; met {len(r.top)} and {len(r.heat_top)}.")
    tall = TILE + 18 + PAD
    figure = new_figure(WIDTH, TITLE + HEAD + tall * len(rows) + FOOT)
    write(figure, MARGIN, 18, title, 24, weight="bold")
    left, second = MARGIN + NAME, MARGIN + NAME + FIT * (TILE + TILE_GAP) + 20
    score = second + FIT * (TILE + TILE_GAP) + 20
    heads = ((MARGIN, "neuron"), (left, "most active images"), (second, "least active"), (score, "mean by label"))
    for x, text in heads:
        write(figure, x, TITLE, text, 14, FAINT)
    tiles: list[tuple[int, int, NDArray[np.float32]]] = []
    for number, row in enumerate(rows):
        y = TITLE + HEAD + number * tall
        write(figure, MARGIN, y + TILE / 2 - 10, row.name, 18, INK, weight="bold")
        most = max(float(row.heat_top.max(initial=0)), float(row.heat_bottom.max(initial=0))) or 1.0
        for x, images, heat, values in (
            (left, row.top, row.heat_top, row.values_top),
            (second, row.bottom, row.heat_bottom, row.values_bottom),
        ):
            for column in range(min(FIT, len(images))):
                at = x + column * (TILE + TILE_GAP)
                tile = fitted(np.nan_to_num(images[column]).clip(0, 1) * 255, TILE)
                tiles.append((y, at, heat_over(tile, heat[column], most) if overlay else tile))
                write(figure, at + TILE / 2, y + TILE + 2, f"{values[column]:+.2f}", 13, FAINT, ha="center")
        _means(figure, score, y, row.by_class)
    bottom = TITLE + HEAD + tall * len(rows) + 4
    write(figure, MARGIN, bottom, "number: activation at the CLS token; heat: where the same unit is active in the picture", 14, FAINT)
    return pasted(pixels(figure), tiles)


def _means(figure: object, x: float, y: float, by_class: Mapping[str, float]) -> None:
    if not by_class:
        return
    axes = add_axes(figure, x, y, SCORE, min(TILE, 24 * len(by_class)))
    values = list(by_class.values())
    low, high = min(*values, 0.0), max(*values, 1e-6)
    # Names stand left of the bars, which begin in the middle.
    axes.set_xlim(low - 1.0 * (high - low), high * 1.05)
    axes.set_ylim(len(values), 0)
    axes.axvline(0, color=GRID, linewidth=points(1))
    for i, (name, value) in enumerate(by_class.items()):
        axes.barh(i + 0.5, value, height=0.6, color=PALETTE[i % len(PALETTE)])
        axes.text(low - 0.06 * (high - low), i + 0.5, name[:11], va="center", ha="right", fontsize=points(14), color=INK, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
