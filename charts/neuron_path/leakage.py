"""Leakage between attributes: a heat map of how far their paths overlap, one of what removing a path does to labels, and the warnings."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.missing import chart
from ..core.style import FAINT, INK, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, TITLE, GAP, LINE = 960, 24, 92, 48, 22
MOST_NAME, MOST_WARNINGS = 14, 8
WARN = "#B2182B"


@chart
def leakage_chart(
    attributes: Sequence[str],
    overlap: NDArray[np.float32],
    changed: NDArray[np.float32],
    control: NDArray[np.float32],
    flagged: Sequence[tuple[int, int]],
    warnings: Sequence[str],
    caption: str = "",
) -> Image:
    """Draw how the paths of attributes overlap and leak: uint8 [H, 960, 3].

    Rows are the attribute whose path it is, columns the one whose labels are read.

    overlap, changed, control [A, A]: cosine of the paths; share of labels that change as the path is removed, and as random ones are.
    flagged: (row, column) of pairs that are framed. Raises ValueError where sizes do not fit.
    """
    n = len(attributes)
    if n < 2 or any(np.shape(x) != (n, n) for x in (overlap, changed, control)):
        raise ValueError(f"a map of leakage needs two or more attributes and a figure for each pair; met {n}.")
    names = [a if len(a) <= MOST_NAME else f"{a[: MOST_NAME - 1]}." for a in attributes]
    left = MARGIN + 14 + 9.5 * max(map(len, names))
    side = min((WIDTH - left - MARGIN - GAP) / 2, 162.0 * n)
    shown = [line for w in warnings[:MOST_WARNINGS] for line in textwrap.wrap(w, 106)] or ["no attribute's labels lean on another's path"]
    more = len(warnings) - MOST_WARNINGS
    shown += [f"and {more} more, in the report"] if more > 0 else []
    figure = new_figure(WIDTH, round(TITLE + 68 + side + 46 + LINE * len(shown) + 20))
    write(figure, MARGIN, 18, "which attribute is read off which", 24, weight="bold")
    write(figure, MARGIN, 52, caption, 16, FAINT)
    for index, (title, note, table) in enumerate(
        (
            ("overlap of paths", "shares of images that choose each neuron: cosine", overlap),
            ("labels that change", "as the row's path is removed; below: random paths", changed),
        )
    ):
        x = left + index * (side + GAP)
        write(figure, x, TITLE, title, 18, INK, weight="bold")
        write(figure, x, TITLE + 24, note, 13, FAINT)
        axes = add_axes(figure, x, TITLE + 68, side, side)
        axes.imshow(table, cmap="Blues" if index == 0 else "Oranges", vmin=0, vmax=1.25 if index == 0 else _top(changed), aspect="auto")
        axes.set_xticks(range(n), names, fontsize=points(14), color=INK, parse_math=False)
        axes.xaxis.tick_top()
        axes.set_yticks(range(n) if index == 0 else [], names if index == 0 else [], fontsize=points(14), color=INK, parse_math=False)
        for (row, column), value in np.ndenumerate(table):
            colour = "white" if value > 0.8 * (1.0 if index == 0 else _top(changed) / 1.25) else INK
            _cell(axes, row, column, value, control if index else None, colour)
        for row, column in flagged if index else ():
            axes.add_patch(_frame(column, row))
        for spine in axes.spines.values():
            spine.set_visible(False)
    write(figure, left - 14, TITLE + 68 + side + 12, "path of", 13, FAINT, ha="right")
    legend = "columns: labels of. On the diagonal: what an attribute's own path is worth to it."
    write(figure, left, TITLE + 68 + side + 12, legend, 13, FAINT)
    for i, line in enumerate(shown):
        write(figure, MARGIN, TITLE + 68 + side + 46 + LINE * i, line, 15, WARN if warnings else INK)
    return pixels(figure)


def _cell(axes: object, row: int, column: int, value: float, control: NDArray[np.float32] | None, colour: str) -> None:
    if control is None:
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=points(16), color=colour)
        return
    axes.text(column, row - 0.12, f"{value:.1%}", ha="center", va="center", fontsize=points(16), color=colour)
    axes.text(column, row + 0.22, f"{control[row, column]:.1%}", ha="center", va="center", fontsize=points(12), color=colour)


def _frame(column: int, row: int) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor=WARN, linewidth=points(4), zorder=5)


def _top(changed: NDArray[np.float32]) -> float:
    """Return the end of the colour scale.

    The diagonal's shares are large; the scale leaves room for the smaller ones next to them.
    """
    off = changed[~np.eye(len(changed), dtype=bool)]
    return max(0.2, 1.6 * float(off.max()))
