"""The features that carry an attribute, ranked: how much each speaks for its class, how surely, where on the map and at which noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.bias_features import AttributeFeatures
from ...models.noise_level import at_level
from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, ROW, HEAD, TITLE, FOOT, GAP = 960, 50, 64, 58, 62, 18
NUMBER, BAR, STABLE, OTHERS, ALONE, CELL_LEFT, NOISE = 24, 96, 388, 464, 540, 640, 714
"""Left edges of the columns; figures end this far right of theirs: """
FIGURE = 62
CELL_SIZE, NOISE_WIDTH = 42, 222
MORE, LESS = "#B2182B", "#2166AC"
"""Where a feature is more or less active than in other classes: the ends of a colour map that people with the common colour-vision
deficiencies can read."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RankingFacts:
    """Figures that the chart shows, of an attribute with K classes and F features."""

    classes: tuple[str, ...]
    """Class names."""
    features: list[int]
    """Latent numbers, F."""
    scores: Floats
    """Score of each feature for each class, [K, F]."""
    stability: Floats
    """Share of resamples in which a feature is among the best of a class, [K, F]; NaN: not measured."""
    knots: Floats
    """Log-SNR [T]."""
    by_level: Floats
    """Scores by noise level, [T, K, F]."""
    cells: Floats
    """Activation in the class minus that in the others, by place: [K, F, 4, 4]."""
    side_effect: Floats
    """Attribution to other attributes relative to that on this one, [F]; NaN: not measured."""
    causal: Floats
    """Change of a class's share when the feature alone is turned, [K, F]; NaN: not measured."""


def ranking_facts(features: AttributeFeatures, source: str = "") -> RankingFacts:
    """Read the facts of the chart off an attribute's features and one of its profiles.

    The place of a feature is its profile to each class, averaged over the noise levels at which it is turned, each counting by what the
    feature carries there.
    """
    profile = features.profile(source)
    acts = (profile.sizes != 0) & (profile.delta != 0).flatten(2).any(2)
    carries = at_level(features.scores_by_level, features.knots, profile.knots).clamp(min=0) * acts[:, :, None]
    weights = carries / carries.sum(0).clamp(min=1e-12)
    return RankingFacts(
        classes=features.classes,
        features=features.features.tolist(),
        scores=features.scores.numpy(),
        stability=features.stability.numpy(),
        knots=features.knots.numpy(),
        by_level=features.scores_by_level.numpy(),
        cells=torch.einsum("tkf,tkrfyx->kfyx", weights, profile.delta / profile.delta.shape[2]).numpy(),
        side_effect=features.side_effect.numpy(),
        causal=features.causal.numpy(),
    )


@chart
def bias_features_chart(attribute: str, facts: RankingFacts, per_class: int = 10, window: tuple[float, float] | None = None) -> Image:
    """Draw a ranked list per class: uint8 [H, 960, 3].

    per_class: features shown for a class, those with the highest positive scores. window: log-SNR from, to, where they are turned.
    Raises ValueError where no feature speaks for any class.
    """
    classes, scores, knots, by_level, causal = facts.classes, facts.scores, facts.knots, facts.by_level, facts.causal
    lists = [[int(f) for f in np.argsort(-scores[k], kind="stable")[:per_class] if scores[k, f] > 0] for k in range(len(classes))]
    shown = [k for k, chosen in enumerate(lists) if chosen]
    if not shown:
        raise ValueError(f"a chart of bias features needs a feature that speaks for a class of '{attribute}'; met none.")
    height = TITLE + sum(HEAD + ROW * len(lists[k]) + GAP for k in shown) + FOOT
    figure = new_figure(WIDTH, height)
    write(figure, NUMBER, 18, f"features that carry {attribute}", 24, weight="bold")
    top, longest = TITLE, float(max(scores[k, lists[k][0]] for k in shown))
    span = _span(knots, by_level, lists)
    for k in shown:
        colour, alone = PALETTE[k % len(PALETTE)], bool(np.isfinite(causal[k, lists[k]]).any())
        write(figure, NUMBER, top, classes[k], 20, colour, weight="bold")
        _headings(figure, top + 32, alone)
        top += HEAD
        _bars(figure, top, scores[k, lists[k]], longest, colour)
        for row, f in enumerate(lists[k]):
            middle = top + ROW * (row + 0.5)
            write(figure, NUMBER, middle, f"#{facts.features[f]}", 17, INK, va="center")
            write(figure, STABLE + FIGURE, middle, _percent(facts.stability[k, f]), 16, INK, va="center", ha="right")
            write(figure, OTHERS + FIGURE, middle, _times(facts.side_effect[f]), 16, INK, va="center", ha="right")
            if alone:
                write(figure, ALONE + FIGURE, middle, _change(causal[k, f]), 16, INK, va="center", ha="right")
            _draw_cells(figure, CELL_LEFT, middle - CELL_SIZE / 2, facts.cells[k, f])
            _noise(figure, NOISE, middle - ROW / 2 + 7, knots, by_level[:, k, f], span, colour, window)
        top += ROW * len(lists[k]) + GAP
    _legend(figure, height - FOOT - GAP + 8, span, bool(np.isfinite(causal).any()))
    return pixels(figure)


def _headings(figure: object, y: float, alone: bool) -> None:
    names = [(NUMBER, "feature"), (BAR, "points of probability"), (CELL_LEFT, "where"), (NOISE, "noise level")]
    for x, text in names:
        write(figure, x, y, text, 14, FAINT)
    for x, text in ((STABLE, "stable"), (OTHERS, "others"), *([(ALONE, "alone")] if alone else [])):
        write(figure, x + FIGURE, y, text, 14, FAINT, ha="right")


def _bars(figure: object, top: float, values: Floats, longest: float, colour: str) -> None:
    axes = add_axes(figure, BAR, top, STABLE - BAR - 8, ROW * len(values))
    axes.set_xlim(0, longest * 1.24)
    axes.set_ylim(len(values), 0)
    axes.barh(np.arange(len(values)) + 0.5, values, height=0.5, color=colour)
    for row, value in enumerate(values):
        axes.text(value + longest * 0.02, row + 0.5, f"{100 * value:.2f}", va="center", fontsize=points(15), color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)


def _draw_cells(figure: object, x: float, y: float, values: Floats) -> None:
    axes = add_axes(figure, x, y, CELL_SIZE, CELL_SIZE)
    most = float(np.abs(values).max()) or 1.0
    axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", aspect="auto")
    _frame(axes)


def _noise(
    figure: object,
    x: float,
    y: float,
    knots: Floats,
    values: Floats,
    span: tuple[float, float],
    colour: str,
    window: tuple[float, float] | None,
) -> None:
    axes = add_axes(figure, x, y, NOISE_WIDTH, ROW - 14)
    axes.set_xlim(*span)
    most = float(np.abs(values).max()) or 1.0
    axes.set_ylim(min(0.0, float(values.min()) / most) - 0.08, 1.1)
    if window is not None:
        axes.axvspan(max(window[0], span[0]), min(window[1], span[1]), color=GRID, alpha=0.55, linewidth=0)
    axes.axhline(0, color=FAINT, linewidth=points(1))
    axes.fill_between(knots, values / most, color=colour, alpha=0.28, linewidth=0)
    axes.plot(knots, values / most, color=colour, linewidth=points(2.2))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _frame(axes: object) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)
        spine.set_linewidth(points(1))


def _legend(figure: object, y: float, span: tuple[float, float], alone: bool) -> None:
    write(figure, NOISE, y, f"{span[0]:.0f}  noise", 13, FAINT)
    write(figure, NOISE + NOISE_WIDTH, y, f"image  {span[1]:.0f}", 13, FAINT, ha="right")
    write(figure, NOISE + NOISE_WIDTH / 2, y, "log-SNR", 13, FAINT, ha="center")
    write(figure, CELL_LEFT + CELL_SIZE, y, "more active in the class", 13, MORE, ha="right")
    write(figure, CELL_LEFT + CELL_SIZE, y + 18, "less active", 13, LESS, ha="right")
    write(figure, NUMBER, y, "stable: share of resamples in which it is among the best", 13, FAINT)
    write(figure, NUMBER, y + 18, "others: effect on other attributes, relative to this one", 13, FAINT)
    if alone:
        write(figure, NUMBER, y + 36, "alone: the class's share with it alone turned up, minus that with it turned down", 13, FAINT)


def _span(knots: Floats, by_level: Floats, lists: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Find the noise levels at which anything was measured."""
    chosen = sorted({f for row in lists for f in row})
    seen = knots[np.abs(by_level[:, :, chosen]).max(axis=(1, 2)) > 0]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (float(knots.min()), float(knots.max()))
    return (low, high) if low < high else (low - 1, high + 1)


def _percent(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "-"


def _times(value: float) -> str:
    return f"x {value:.1f}" if math.isfinite(value) else "-"


def _change(value: float) -> str:
    return f"{100 * value:+.0f} pt" if math.isfinite(value) else "-"
