"""How a classifier treats groups: accuracy, true and false positive rates of every group with their intervals, and the differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...metrics.classifier_fairness import ClassifierFairness, Difference, Rate
from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, MARGIN, ROW, HEAD, FOOT = 960, 24, 40, 190, 110
MOST_GROUPS = 24


@chart
def fairness_chart(fairness: ClassifierFairness, attribute: str, group: str, classifier: str = "") -> Image:
    """Draw one attribute's errors over the groups of another: uint8 [H, 960, 3].

    Left: accuracy; right: true positive (dots) and false positive rates (crosses) of the class whose rates differ most. Groups beyond 24
    are left out, the best ones first.
    """
    groups = sorted(fairness.groups, key=lambda g: g.accuracy.value or 0.0)[:MOST_GROUPS]
    groups = [g for g in fairness.groups if g in groups]
    height = HEAD + ROW * len(groups) + FOOT
    figure = new_figure(WIDTH, height)
    write(figure, MARGIN, 16, f"{attribute} by {group}" + (f": {classifier}" if classifier else ""), 24, weight="bold")
    write(figure, MARGIN, 54, f"equalised odds difference {difference_text(fairness.equalised_odds_difference)}", 18)
    write(figure, MARGIN, 80, f"demographic parity difference {difference_text(fairness.demographic_parity_difference)}", 18)
    by_chance = fairness.equalised_odds_difference.chance
    if by_chance is not None:
        line = f"A classifier that treats all groups alike has {by_chance:.3f} and {fairness.demographic_parity_difference.chance:.3f} here"
        write(figure, MARGIN, 108, f"{line} (n = {fairness.n})", 15, FAINT)
    shown = widest_class(fairness)
    write(figure, MARGIN + 220, 146, "accuracy", 17, weight="bold")
    write(figure, MARGIN + 580, 146, f"of '{shown}': true and false positives", 17, weight="bold")
    names = [f"{_short(g.name)} ({g.accuracy.n})" for g in groups]
    left = add_axes(figure, MARGIN + 220, HEAD - 16, 300, ROW * len(groups))
    right = add_axes(figure, MARGIN + 580, HEAD - 16, 320, ROW * len(groups))
    _rates(left, [[g.accuracy for g in groups]], (PALETTE[0],), ("D",))
    both = [[g.by_class[shown][k] for g in groups] for k in ("true_positive", "false_positive")]
    _rates(right, both, (PALETTE[2], PALETTE[3]), ("o", "X"))
    left.set_yticks(range(len(groups)), names, fontsize=points(17), color=INK, parse_math=False)
    right.set_yticks(range(len(groups)), [""] * len(groups))
    if fairness.accuracy.value is not None:
        left.axvline(fairness.accuracy.value, color=FAINT, linestyle=":", linewidth=points(2))
    worst = f"Worst group: {fairness.worst_group}, {percent(fairness.worst_group_accuracy)}"
    write(figure, MARGIN, height - 66, "Lines: 95% (Wilson). Green dots: true positives; orange crosses: false positives.", 15, FAINT)
    write(figure, MARGIN, height - 42, f"Dotted: accuracy over all images, {fairness.accuracy.value:.1%}. {worst}.", 15, FAINT)
    return pixels(figure)


def fairness_text(fairness: ClassifierFairness, attribute: str, group: str) -> str:
    """Describe the figures in words, with a row for every group."""
    odds, parity = fairness.equalised_odds_difference, fairness.demographic_parity_difference
    lines = [
        f"{attribute} by {group}, {fairness.n} images: accuracy {percent(fairness.accuracy)}, worst group {fairness.worst_group} "
        f"{percent(fairness.worst_group_accuracy)}",
        f"equalised odds difference {difference_text(odds)}, by chance {_plain(odds.chance)}",
        f"demographic parity difference {difference_text(parity)}, by chance {_plain(parity.chance)}",
    ]
    for g in fairness.groups:
        lines.append(f"{g.name}: {g.accuracy.n} images, accuracy {percent(g.accuracy)}")
        for c, r in g.by_class.items():
            rates = ", ".join(f"{k.replace('_', ' ')} {percent(r[k])}" for k in ("selected", "true_positive", "false_positive"))
            lines.append(f"  {c}: {rates}")
    return "\n".join([*lines, *(f"note: {n}" for n in fairness.notes)])


def widest_class(fairness: ClassifierFairness) -> str:
    """Return the class in which the groups' rates differ most.

    Of two classes the first, since both differ alike.
    """

    def gap(name: str) -> float:
        figures = fairness.by_class[name]
        return round(max(figures["true_positive_difference"] or 0.0, figures["false_positive_difference"] or 0.0), 12)

    return max(fairness.classes, key=gap)


def difference_text(d: Difference) -> str:
    """Write a difference with its interval."""
    if d.value is None:
        return "not to be had"
    return f"{d.value:.3f}" + (f" [{d.low:.3f}, {d.high:.3f}]" if d.low is not None and d.high is not None else "")


def percent(r: Rate) -> str:
    """Write a rate with its interval."""
    return "-" if r.value is None else f"{r.value:.1%} [{r.low:.1%}, {r.high:.1%}]"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 2]}.."


def _rates(axes: Axes, columns: Sequence[Sequence[Rate]], colours: Sequence[str], markers: Sequence[str]) -> None:
    """Draw rates with their intervals, a row for every group, from 0 to 1."""
    for k, (rates, colour, marker) in enumerate(zip(columns, colours, markers, strict=True)):
        shift = (k - (len(columns) - 1) / 2) * 0.3
        for row, r in enumerate(rates):
            if r.value is None:
                continue
            y = row + shift
            axes.plot([r.low, r.high], [y, y], color=colour, linewidth=points(3), solid_capstyle="butt", zorder=2)
            axes.plot(r.value, y, marker=marker, markersize=points(11), color=colour, zorder=3, clip_on=False, linestyle="none")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(columns[0]) - 0.5, -0.5)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], color=FAINT)
    axes.grid(axis="x", color=GRID, linewidth=points(1))
