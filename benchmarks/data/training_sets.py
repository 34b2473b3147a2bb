"""Draw a difference between groups and the accuracy of several training sets, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...charts.core.missing import chart
from ...charts.core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, LEFT, ROW, HEAD, GAP, FOOT = 960, 200, 34, 64, 100, 40
COLUMN, APART = 290, 380
Bounds = Sequence[float | None]
"""[mean, low, high]; low and high are None if there is no interval."""


@chart
def training_sets(panels: Mapping[str, Mapping[str, tuple[Bounds, Bounds]]], title: str, note: str = "") -> Image:
    """Draw a panel per title and a row per training set: uint8 [H, 960, 3].

    panels: title -> training set -> (equalised odds difference, accuracy), both in 0..1. A line marks the first set of a panel, with which
    the others are compared. Raises ValueError if there is nothing to draw.
    """
    if not panels or not all(panels.values()):
        raise ValueError("A chart of training sets needs at least one set in every panel, but a panel has none.")
    heights = [len(sets) * ROW + GAP for sets in panels.values()]
    figure = new_figure(WIDTH, HEAD + sum(heights) + FOOT)
    write(figure, 24, 16, title, 24, weight="bold")
    top = HEAD
    for (name, sets), height in zip(panels.items(), heights, strict=True):
        write(figure, 24, top - 12, name, 19, weight="bold")
        columns = (("equalised odds difference", PALETTE[3]), ("accuracy", PALETTE[0]))
        for k, (what, colour) in enumerate(columns):
            axes = add_axes(figure, LEFT + k * APART, top + 40, COLUMN, height - GAP)
            write(figure, LEFT + k * APART, top + 16, what, 16, FAINT)
            values = [bounds[k] for bounds in sets.values()]
            limit = 1.0 if k else max(0.05, *(b[0] if b[2] is None else b[2] for b in values)) * 1.05
            start = max(0.0, min(b[0] if b[1] is None else b[1] for b in values) - 0.03) if k else 0.0
            axes.axvline(values[0][0], color=FAINT, linestyle=":", linewidth=points(2), zorder=1)
            for row, (mean, low, high) in enumerate(values):
                if low is not None and high is not None:
                    axes.plot([low, high], [row, row], color=colour, linewidth=points(4), solid_capstyle="butt", zorder=2)
                axes.plot(mean, row, "D", color=colour, markersize=points(10), zorder=3, clip_on=False)
                axes.text(limit + (limit - start) * 0.04, row, f"{mean:.3f}", va="center", fontsize=points(15), color=INK)
            axes.set_xlim(start, limit)
            axes.set_ylim(len(values) - 0.5, -0.5)
            axes.set_yticks(range(len(values)), [""] * len(values) if k else list(sets), fontsize=points(17), parse_math=False)
            axes.tick_params(axis="x", labelsize=points(14), labelcolor=FAINT)
            axes.grid(axis="x", color=GRID, linewidth=points(1))
        top += height
    if note:
        write(figure, 24, HEAD + sum(heights) + FOOT - 34, note, 15, FAINT)
    return pixels(figure)
