"""Draw values with their intervals by name, in panels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...charts.core.missing import chart
from ...charts.core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

Value = tuple[float, float | None, float | None]
"""The value, and the bounds of its interval or None."""
ROW, TOP, BOTTOM, LEFT, RIGHT, GAP, PANEL, WIDTH = 30, 112, 66, 190, 24, 20, 220, 1040
"""Sizes in pixels. ``PANEL`` and ``WIDTH`` are minimums: a few panels become wider, so that the title fits."""


@chart
def forest(
    panels: Mapping[str, Mapping[str, Value]],
    title: str,
    x_name: str,
    marked: Sequence[str] = (),
    lines: Mapping[str, float] | None = None,
    note: str = "",
) -> Image:
    """Draw a panel per group and a row per name: uint8 [H, W, 3].

    All panels have the same axis, which starts at 0.

    panels: group -> name -> (value, low, high); a name that a group lacks leaves its row empty. marked: names in colour. lines: group ->
    value of a dotted line. note: a second line under the title. Raises ValueError if there is nothing to draw.
    """
    names = list(dict.fromkeys(name for values in panels.values() for name in values))
    if not names:
        raise ValueError("A chart of intervals needs at least one value, but there is none.")
    # White space on the right: the largest bound would touch the next panel.
    largest = 1.05 * max(max(v[0], v[2] or 0.0) for values in panels.values() for v in values.values()) or 1.0
    count = len(panels)
    panel = max(PANEL, (WIDTH - LEFT - RIGHT - (count - 1) * GAP) // count)
    width = LEFT + count * panel + (count - 1) * GAP + RIGHT
    height = TOP + ROW * len(names) + BOTTOM
    figure = new_figure(width, height)
    write(figure, 24, 18, title, 24, weight="bold")
    if note:
        write(figure, 24, 52, note, 16, FAINT)
    for index, (group, values) in enumerate(panels.items()):
        left = LEFT + index * (panel + GAP)
        axes = add_axes(figure, left, TOP, panel, ROW * len(names))
        write(figure, left + panel / 2, TOP - 28, group, 17, ha="center", weight="bold")
        for row, name in enumerate(names):
            if name not in values:
                continue
            value, low, high = values[name]
            colour = PALETTE[3] if name in marked else PALETTE[0]
            if low is not None and high is not None:
                axes.plot([low, high], [row, row], color=colour, linewidth=points(2.6), solid_capstyle="butt", zorder=2)
            axes.plot([value], [row], marker="D" if name in marked else "o", color=colour, markersize=points(9), zorder=3, clip_on=False)
        if lines and group in lines:
            axes.axvline(lines[group], color=INK, linewidth=points(1.6), linestyle=":", zorder=1)
        axes.set_xlim(0, largest)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if index == 0 else [""] * len(names), parse_math=False)
        axes.grid(axis="x", color=GRID, linewidth=points(1))
        axes.locator_params(axis="x", nbins=4)
    write(figure, LEFT + (width - LEFT - RIGHT) / 2, height - 30, x_name, 17, ha="center")
    return pixels(figure)
