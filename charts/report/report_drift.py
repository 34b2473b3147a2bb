"""Change of shares, class by class, as bars to the left and right of zero."""

from __future__ import annotations

from collections.abc import Sequence

from ...metrics.drift import DriftReport
from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, HEAD, ROW, FOOT = 960, 24, 46, 34, 52
LEFT, RIGHT = 250, 230


@chart
def drift_chart(reports: Sequence[DriftReport]) -> Image:
    """Draw drift as one group of bars per attribute: uint8 [H, 960, 3].

    One scale for all.

    Raises ValueError without reports.
    """
    if not reports:
        raise ValueError("a chart of drift needs at least one attribute; met none.")
    figure = new_figure(WIDTH, sum(HEAD + ROW * len(r.classes) for r in reports) + FOOT)
    limit = scale_of(reports)
    top = 0
    for report in reports:
        height = ROW * len(report.classes)
        write(figure, MARGIN, top + 12, report.attribute, 19, weight="bold")
        write(figure, LEFT, top + 14, spoken(report), 15, FAINT)
        axes = add_axes(figure, LEFT, top + HEAD, WIDTH - LEFT - RIGHT, height)
        rows = range(len(report.classes))
        axes.barh(list(rows), report.change, height=0.56, color=PALETTE[0], zorder=2)
        axes.axvline(0, color=INK, linewidth=points(1.6), zorder=3)
        for row in rows:
            if report.change_low is not None and report.change_high is not None:
                ends = [report.change_low[row], report.change_high[row]]
                axes.plot(ends, [row, row], color=INK, linewidth=points(2.4), zorder=4, solid_capstyle="butt")
                for end in ends:
                    axes.plot([end, end], [row - 0.14, row + 0.14], color=INK, linewidth=points(2.4), zorder=4)
            text = f"{100 * report.change[row]:+.1f}  ({report.before[row]:.1%} to {report.after[row]:.1%})"
            axes.text(limit * 1.03, row, text, va="center", fontsize=points(16), color=INK)
        axes.set_xlim(-limit, limit)
        axes.set_ylim(len(report.classes) - 0.5, -0.5)
        axes.set_yticks(list(rows), [c if len(c) < 24 else f"{c[:22]}.." for c in report.classes], fontsize=points(17), parse_math=False)
        last = report is reports[-1]
        ticks = [-limit, -limit / 2, 0, limit / 2, limit]
        axes.set_xticks(ticks, [f"{100 * t:+g}" if t else "0" for t in ticks] if last else [""] * len(ticks), color=FAINT)
        axes.grid(axis="x", color=GRID, linewidth=points(1))
        top += HEAD + height
    write(figure, LEFT, top + 30, "change in percentage points, steered minus base", 15, FAINT)
    return pixels(figure)


def scale_of(reports: Sequence[DriftReport]) -> float:
    """Choose the end of the axis, the same on either side.

    The next of 0.05, 0.1, 0.2, 0.4, 0.6, 0.8 and 1 that holds all bars and intervals.
    """
    largest = max(abs(v) for r in reports for v in (*r.change, *(r.change_low or ()), *(r.change_high or ())))
    return next((s for s in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if largest <= s), 1.0)


def spoken(r: DriftReport) -> str:
    """Describe what chance leaves, and how many images changed their class."""
    moved = "" if r.moved is None else f"; {r.moved:.1%} of the pairs changed"
    return f"largest change {100 * r.drift:.1f}, chance leaves {100 * r.floor:.1f} (p = {r.p_value:.2g}){moved}"
