"""What paths do: box plots over images of how the target's probability changes as each method's paths are removed, or doubled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, TITLE, HEAD, ROW, FOOT = 960, 24, 84, 44, 46, 78
NAME, FIGURE = 190, 150
"""Widths of the methods' names, and of the accuracy at the right."""


@dataclass(frozen=True)
class EffectRow:
    """One method's paths under one operation."""

    method: str
    """Name of the method."""
    change: NDArray[np.float32]
    """Change of the target's probability by image, [B]."""
    accuracy: tuple[float, float, float]
    """Change of accuracy, with bounds."""


@chart
def path_effects_chart(title: str, panels: Sequence[tuple[str, Sequence[EffectRow]]], caption: str = "") -> Image:
    """Draw effects as boxes, a panel per operation: uint8 [H, 960, 3].

    A box per method.

    Both panels have one scale.

    Raises ValueError without rows, or where a row has no images.
    """
    rows = [r for _, of in panels for r in of]
    if not rows or any(not len(r.change) for r in rows):
        raise ValueError("a picture of what paths do needs at least one method, measured on at least one image.")
    low = min(min(float(r.change.min()) for r in rows), -0.01)
    high = max(max(float(r.change.max()) for r in rows), 0.01)
    room = 0.04 * (high - low)
    heights = [HEAD + ROW * len(of) + 46 for _, of in panels]
    figure = new_figure(WIDTH, TITLE + sum(heights) + FOOT)
    write(figure, MARGIN, 18, title, 24, weight="bold")
    write(figure, MARGIN, 52, caption, 16, FAINT)
    top = TITLE
    for (name, of), height in zip(panels, heights, strict=True):
        _panel(figure, top, name, of, (low - room, high + room))
        top += height
    for i, line in enumerate(
        (
            "box: the middle half of the images, its line the median, whiskers 5% to 95%, diamond the mean",
            "grey: as many neurons of the same layers, drawn at random; a path that does no more says nothing",
        )
    ):
        write(figure, MARGIN, top + 4 + 22 * i, line, 14, FAINT)
    return pixels(figure)


def _panel(figure: object, top: float, name: str, rows: Sequence[EffectRow], span: tuple[float, float]) -> None:
    write(figure, MARGIN, top, name, 19, INK, weight="bold")
    write(figure, WIDTH - MARGIN, top + 4, "change of accuracy", 14, FAINT, ha="right")
    width, height = WIDTH - 2 * MARGIN - NAME - FIGURE, ROW * len(rows)
    axes = add_axes(figure, MARGIN + NAME, top + HEAD - 8, width, height)
    axes.set_xlim(*span)
    axes.set_ylim(len(rows), 0)
    axes.grid(axis="x", color=GRID, linewidth=points(1))
    axes.axvline(0, color=FAINT, linewidth=points(1.6))
    for i, row in enumerate(rows):
        colour = "#9A9A9A" if row.method == "random" else PALETTE[i % len(PALETTE)]
        box = axes.boxplot(
            row.change,
            positions=[i + 0.5],
            orientation="horizontal",
            widths=0.56,
            whis=(5, 95),
            showmeans=True,
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "edgecolor": INK, "linewidth": points(1.2), "alpha": 0.55},
            medianprops={"color": INK, "linewidth": points(2.4)},
            meanprops={"marker": "D", "markersize": points(8), "markerfacecolor": "white", "markeredgecolor": INK},
            whiskerprops={"color": INK, "linewidth": points(1.2)},
            capprops={"color": INK, "linewidth": points(1.2)},
        )
        box["boxes"][0].set_zorder(3)
        mean, low, high = row.accuracy
        y = top + HEAD - 8 + ROW * (i + 0.5)
        write(figure, MARGIN + NAME - 12, y, row.method, 16, INK, ha="right", va="center")
        bounds = "" if np.isnan(low) else f" ({low:+.0%} to {high:+.0%})"
        write(figure, WIDTH - MARGIN, y, f"{mean:+.1%}{bounds}", 14, INK, ha="right", va="center")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("change of the class's probability", fontsize=points(14), color=FAINT, labelpad=2)
    axes.tick_params(axis="x", labelsize=points(14), colors=FAINT, pad=points(4))
