"""Shares of classes as horizontal bars, with their uncertainty and their target; joint tables as cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...metrics.fairness import SEPARATOR, ShareReport
from ...metrics.panels import Panel
from .missing import chart
from .style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, MARGIN, HEAD, LEGEND = 960, 24, 92, 88
BAR, PAIR, AXIS, GAP = 46, 74, 34, 14
CELL, MOST_CELLS = 96, 32
BEFORE, OVER, UNDER = "#A6A6A6", "#5AA5D6", "#D98A3D"
DIAMOND = {
    "marker": "D",
    "linestyle": "none",
    "color": "white",
    "markersize": points(9),
    "markeredgecolor": INK,
    "markeredgewidth": points(1.6),
}


@chart
def histogram(panels: Sequence[Panel], names: tuple[str, str] = ("images", "baseline"), title: str = "", soft: bool = True) -> Image:
    """Draw one or more panels, one below the other: uint8 [H, 960, 3].

    Readable at two thirds of that width.

    names: what the images and the baseline images are called. soft: mark the mean probabilities too. Raises ValueError without panels.
    """
    if not panels:
        raise ValueError("a histogram needs at least one panel, and there is none.")
    top = 54 if title else 12
    heights = [_height(p) for p in panels]
    figure = new_figure(WIDTH, top + sum(heights) + LEGEND)
    if title:
        write(figure, MARGIN, 16, title, 24, weight="bold")
    for panel, height in zip(panels, heights, strict=True):
        _head(figure, panel, top, names)
        draw = _table if _is_table(panel) else _bars
        draw(figure, panel, top + HEAD, height - HEAD, names, soft)
        top += height
    _legend(figure, panels, names, soft)
    return pixels(figure)


def histogram_text(panels: Sequence[Panel]) -> str:
    """Describe the panels in a few lines each."""
    lines = []
    for panel in panels:
        r = panel.report
        shares = ", ".join(f"{c} {s:.1%} ({n})" for c, s, n in zip(r.classes, r.shares, r.counts, strict=True))
        lines.append(f"{panel.name}: {shares}")
        lines.append(f"  {_discrepancy(r)}; {_floor(r)}; unsure {r.unsure:.1%}")
        if panel.baseline:
            lines.append(f"  baseline: {_discrepancy(panel.baseline)}")
    return "\n".join(lines)


def _is_table(panel: Panel) -> bool:
    return len(panel.attributes) > 1 and len(panel.report.classes) <= MOST_CELLS and len(panel.classes[-1]) <= 5


def _short(text: str, most: int) -> str:
    """Cut in the middle: the ends tell the cells of a joint table apart."""
    return text if len(text) <= most else f"{text[: (most - 2) // 2]}..{text[-(most - 1) // 2 :]}"


def _height(panel: Panel) -> int:
    if _is_table(panel):
        return HEAD + 34 + CELL * (len(panel.report.classes) // len(panel.classes[-1])) + GAP + 24
    return HEAD + len(panel.report.classes) * (PAIR if panel.baseline else BAR) + AXIS + GAP


def _discrepancy(r: ShareReport) -> str:
    interval = f" [{r.fd_low:.3f}, {r.fd_high:.3f}]" if r.fd_low is not None and r.fd_high is not None else ""
    return f"{'FD' if r.target_given else 'distance to uniform (no target given)'} {r.fd:.3f}{interval}"


def _floor(r: ShareReport) -> str:
    return f"an independent fair sampler has {r.noise_floor:.3f} at n = {r.n}"


def _head(figure: Figure, panel: Panel, top: int, names: tuple[str, str]) -> None:
    write(figure, MARGIN, top + 4, panel.name, 22, weight="bold")
    before = f"    {names[1]}: {panel.baseline.fd:.3f} (n = {panel.baseline.n})" if panel.baseline else ""
    write(figure, MARGIN, top + 34, _discrepancy(panel.report) + before, 18)
    write(figure, MARGIN, top + 59, f"{_floor(panel.report)[0].upper()}{_floor(panel.report)[1:]}", 15, FAINT)


def _bars(figure: Figure, panel: Panel, top: int, height: int, _: tuple[str, str], soft: bool) -> None:
    report, before = panel.report, panel.baseline
    labels = [_short(c, 30) for c in report.classes]
    left = MARGIN + 16 + min(300, max(60, 10 * max(map(len, labels))))
    axes = add_axes(figure, left, top, WIDTH - left - MARGIN - 150, height - AXIS - GAP)
    rows = range(len(labels))
    thick, offset = (0.36, 0.21) if before else (0.62, 0.0)
    highs = report.shares_high or report.shares
    limit = min(1.0, max(*highs, *report.target, *(before.shares_high or before.shares if before else (0.0,))) * 1.08 + 0.02)
    for row in rows:
        _bar(axes, report, row, row - offset, thick, PALETTE[0], soft, limit)
        if before:
            _bar(axes, before, row, row + offset, thick, BEFORE, soft, limit)
        at = [report.target[row]] * 2
        axes.plot(at, [row - 0.46, row + 0.46], color=_target_colour(report), linewidth=points(4), zorder=5, clip_on=False)
    axes.set_xlim(0, limit)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(rows, labels, fontsize=points(18), color=INK, parse_math=False)
    step = 0.2 if limit > 0.5 else 0.1 if limit > 0.25 else 0.05
    ticks = [i * step for i in range(int(limit / step + 1e-9) + 1)]
    axes.set_xticks(ticks, [f"{t:.0%}" for t in ticks], color=FAINT)
    axes.grid(axis="x", color=GRID, linewidth=points(1))


def _bar(axes: Axes, r: ShareReport, row: int, y: float, thick: float, colour: str, soft: bool, limit: float) -> None:
    axes.barh(y, r.shares[row], height=thick, color=colour, zorder=2)
    if r.shares_low and r.shares_high:
        axes.plot([r.shares_low[row], r.shares_high[row]], [y, y], color=INK, linewidth=points(2.4), zorder=6, solid_capstyle="butt")
        for end in (r.shares_low[row], r.shares_high[row]):
            axes.plot([end, end], [y - thick * 0.22, y + thick * 0.22], color=INK, linewidth=points(2.4), zorder=6)
    if soft:
        axes.plot(r.soft_shares[row], y, zorder=7, clip_on=False, **DIAMOND)
    size, ink = (18, INK) if colour == PALETTE[0] else (16, FAINT)
    axes.text(limit * 1.015, y, f"{r.shares[row]:.1%}  ({r.counts[row]})", va="center", fontsize=points(size), color=ink)


def _table(figure: Figure, panel: Panel, top: int, height: int, names: tuple[str, str], _: bool) -> None:
    """Draw a table of shares, coloured by share minus target.

    Rows: cells of all attributes but the last; columns: classes of the last.

    Colour: share minus target.
    """
    from matplotlib.colors import LinearSegmentedColormap

    report, columns = panel.report, panel.classes[-1]
    rows = [_short(c.rsplit(SEPARATOR, 1)[0], 26) for c in report.classes[:: len(columns)]]
    left = MARGIN + 16 + min(260, max(60, 10 * max(map(len, rows))))
    width = WIDTH - left - MARGIN
    axes = add_axes(figure, left, top + 34, width, CELL * len(rows))
    colours = LinearSegmentedColormap.from_list("deviation", [UNDER, "#FFFFFF", OVER])
    scale = max(0.05, *(abs(s - t) for s, t in zip(report.shares, report.target, strict=True)))
    for i, (share, target, count) in enumerate(zip(report.shares, report.target, report.counts, strict=True)):
        row, column = divmod(i, len(columns))
        axes.add_patch(_rectangle(column, row, colours(0.5 + 0.5 * (share - target) / scale)))
        interval = f"  [{report.shares_low[i]:.0%}, {report.shares_high[i]:.0%}]" if report.shares_low and report.shares_high else ""
        aim = f"target {target:.1%}" + (f",  {names[1]} {panel.baseline.shares[i]:.1%}" if panel.baseline else "")
        small = min(15.0, width / len(columns) / max(len(aim), len(interval) + 12) * 1.7)
        for y, text, size in ((0.30, f"{share:.1%}", 22.0), (0.56, f"{count} images{interval}", small), (0.79, aim, small)):
            weight = "bold" if size > 20 else "normal"
            style = {"fontsize": points(size), "color": INK, "weight": weight, "parse_math": False}
            axes.text(column + 0.5, row + y, text, ha="center", va="center", **style)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.xaxis.tick_top()
    heads = [_short(c, int(width / len(columns) / 10.5)) for c in columns]
    axes.set_xticks([c + 0.5 for c in range(len(columns))], heads, fontsize=points(18), parse_math=False)
    axes.set_yticks([r + 0.5 for r in range(len(rows))], rows, fontsize=points(18), parse_math=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _rectangle(x: float, y: float, colour: object) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((x + 0.01, y + 0.03), 0.98, 0.94, facecolor=colour, edgecolor="#BBBBBB", linewidth=points(1))


def _target_colour(r: ShareReport) -> str:
    return PALETTE[3] if r.target_given else PALETTE[5]


def _legend(figure: Figure, panels: Sequence[Panel], names: tuple[str, str], soft: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    report, before = panels[0].report, panels[0].baseline
    entries: list[tuple[object, str]] = [(Patch(color=PALETTE[0]), f"{names[0]} (n = {report.n})")]
    if before:
        entries.append((Patch(color=BEFORE), f"{names[1]} (n = {before.n})"))
    if any(p.report.target_given for p in panels):
        entries.append((Line2D([], [], color=PALETTE[3], linewidth=points(4)), "target"))
    if not all(p.report.target_given for p in panels):
        entries.append((Line2D([], [], color=PALETTE[5], linewidth=points(4)), "uniform"))
    if soft:
        entries.append((Line2D([], [], **DIAMOND), "mean probability"))
    if report.shares_low:
        what = f"batches of {report.batch}" if report.resampled == "batches" else "images"
        entries.append((Line2D([], [], color=INK, linewidth=points(2.4)), f"95%, resampling {what}"))
    if any(_is_table(p) for p in panels):
        entries += [(Patch(color=OVER), "cell above target"), (Patch(color=UNDER), "cell below target")]
    handles, texts = zip(*entries, strict=True)
    legend_at = {"loc": "lower left", "bbox_to_anchor": (0.012, 0.0), "ncols": 3}
    figure.legend(handles, texts, frameon=False, fontsize=points(16), labelcolor=INK, **legend_at)
