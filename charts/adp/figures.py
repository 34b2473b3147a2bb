"""How well a predictor reads: accuracy and loss by noise level, one below the other; and what calibration tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.curves import accuracy_by_log_snr, curves_by_log_snr
from ..core.missing import chart
from ..core.sheet import stacked
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

Curves = Mapping[str, Sequence[Sequence[float]]]

WIDTH, LEFT, ROW, HEAD, GROUP, FOOT = 960, 300, 26, 76, 34, 104


def adp_curves(
    accuracy: Curves, loss: Curves, classes: Mapping[str, int], windows: Mapping[str, tuple[float, float]] | None = None
) -> Image:
    """Draw held-out balanced accuracy and loss by log-SNR: uint8 [1048, 960, 3].

    A line per attribute; the accuracy of guessing is dotted.

    accuracy, loss: attribute -> [[log-SNR, value], ...]; either may be empty. classes: number of classes by attribute. windows: log-SNR
    from, to, in which an attribute is moved. Raises ValueError where there is nothing to draw.
    """
    parts = []
    if any(accuracy.values()) or not any(loss.values()):
        chance = {a: 1 / k for a, k in classes.items() if a in accuracy}
        parts.append(accuracy_by_log_snr(_pairs(accuracy), "held-out balanced accuracy by noise level", chance, windows))
    if any(loss.values()):
        chance = {a: math.log(k) for a, k in classes.items() if a in loss}
        parts.append(curves_by_log_snr(_pairs(loss), "held-out loss by noise level", "cross-entropy", chance))
    return stacked(parts)


def _pairs(curves: Curves) -> dict[str, list[tuple[float, float]]]:
    return {a: [(float(at), float(v)) for at, v in curve] for a, curve in curves.items()}


@dataclass(frozen=True)
class TrialRow:
    """One trial of a calibration."""

    group: str
    """Kind of move or profile that was tried."""
    name: str
    """Its sizes, in words."""
    hits: tuple[float, ...]
    """Share of images read as assigned, by class."""
    drift: float
    """Drift of the other attributes."""
    unsure: float
    """Share of images that are unsure; NaN where it is not known."""
    chosen: bool = False
    """Whether these sizes were kept for the kind."""
    best: bool = False
    """Whether the kind is the one that is used."""


@chart
def trials_chart(rows: Sequence[TrialRow], title: str, plain_unsure: float = math.nan) -> Image:
    """Draw the trials of a calibration, a line each: uint8 [H, 960, 3].

    Below their group's heading: mean hits as a bar with the worst class marked, drift and unsure share as marks. Raises ValueError without
    trials.
    """
    if not rows:
        raise ValueError("a chart of trials needs at least one trial; met none.")
    groups = list(dict.fromkeys(r.group for r in rows))
    body = GROUP * len(groups) + ROW * len(rows)
    figure = new_figure(WIDTH, HEAD + body + FOOT)
    write(figure, 24, 18, title, 24, weight="bold")
    axes = add_axes(figure, LEFT, HEAD, WIDTH - LEFT - 40, body)
    axes.set_xlim(0, 1)
    axes.set_ylim(body, 0)
    y = 0.0
    for group in groups:
        write(figure, 24, HEAD + y + 10, group, 18, weight="bold")
        y += GROUP
        for row in (r for r in rows if r.group == group):
            _row(axes, row, y + ROW / 2)
            colour, weight = (INK, "bold") if row.chosen else (FAINT, "normal")
            word = f"{row.name}  (used)" if row.best else row.name
            write(figure, LEFT - 12, HEAD + y + ROW / 2, word, 15, colour, weight=weight, ha="right", va="center")
            y += ROW
    if math.isfinite(plain_unsure):
        axes.axvline(plain_unsure, color=PALETTE[3], linewidth=points(1.6), linestyle=":", zorder=2)
    axes.set_yticks([])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], color=FAINT)
    axes.grid(axis="x", color=GRID, linewidth=points(1))
    _legend(figure, math.isfinite(plain_unsure))
    return pixels(figure)


def _row(axes: object, row: TrialRow, y: float) -> None:
    mean = sum(row.hits) / len(row.hits)
    colour = PALETTE[2] if row.best else PALETTE[0] if row.chosen else PALETTE[4]
    axes.barh(y, mean, height=ROW * 0.62, color=colour, zorder=1)
    axes.plot([min(row.hits)] * 2, [y - ROW * 0.31, y + ROW * 0.31], color=INK, linewidth=points(2.4), zorder=3)
    axes.plot([row.drift], [y], marker="D", color="white", markeredgecolor=INK, markersize=points(8), zorder=4, clip_on=False)
    if math.isfinite(row.unsure):
        axes.plot([row.unsure], [y], marker="o", color=PALETTE[3], markeredgecolor="white", markersize=points(9), zorder=4, clip_on=False)


def _legend(figure: object, plain: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=PALETTE[0]),
        Line2D([], [], color=INK, marker="|", linestyle="none", markersize=points(14), markeredgewidth=points(2.4)),
        Line2D([], [], color="white", marker="D", linestyle="none", markeredgecolor=INK, markersize=points(8)),
        Line2D([], [], color=PALETTE[3], marker="o", linestyle="none", markersize=points(9)),
    ]
    texts = ["read as assigned, mean", "the same, worst class", "drift of the other attributes", "unsure"]
    if plain:
        handles.append(Line2D([], [], color=PALETTE[3], linestyle=":", linewidth=points(1.6)))
        texts.append("unsure in plain images")
    figure.legend(
        handles, texts, loc="lower left", bbox_to_anchor=(0.012, 0), ncols=3, frameon=False, fontsize=points(15), labelcolor=INK
    )
