"""How few neurons a classifier needs: accuracy and probability on held-out images by neurons kept, beside as many random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, TITLE, PANEL, FOOT = 960, 64, 96, 320, 108
Bounds = tuple[float, float, float]
"""Mean, low, high."""


@dataclass(frozen=True)
class PrunedPoint:
    """Figures of a classifier from which most neurons are pruned."""

    kept: int
    """Neurons kept in each layer for each class."""
    share: float
    """Probability with which each of the others is pruned."""
    accuracy: Bounds
    """Accuracy with bounds."""
    probability: Bounds
    """Probability of the class with bounds."""
    control_accuracy: Bounds
    """Accuracy where random neurons are kept."""
    control_probability: Bounds
    """Probability where random neurons are kept."""


@chart
def prune_chart(
    title: str, points_: Sequence[PrunedPoint], whole: tuple[float, float], recommended: int | None, caption: str = "", known: bool = True
) -> Image:
    """Draw accuracy and probability against what is pruned: uint8 [H, 960, 3].

    Two panels, a line for each share that is pruned.

    ``whole``: accuracy and probability of the whole model.

    Raises ValueError without points.
    """
    if not points_:
        raise ValueError("a pruning curve needs at least one point; met none.")
    figure = new_figure(WIDTH, TITLE + PANEL + FOOT)
    write(figure, 24, 18, title, 24, weight="bold")
    write(figure, 24, 52, caption, 16, FAINT)
    kept = sorted({p.kept for p in points_})
    shares = sorted({p.share for p in points_})
    width = (WIDTH - 2 * MARGIN - 56) / 2
    what = "accuracy on held-out images" if known else "agreement with the whole model"
    for index, (name, own, control) in enumerate(
        ((what, "accuracy", "control_accuracy"), ("probability of the class", "probability", "control_probability"))
    ):
        axes = add_axes(figure, MARGIN + index * (width + 56), TITLE + 30, width, PANEL - 60)
        write(figure, MARGIN + index * (width + 56), TITLE, name, 17, INK, weight="bold")
        axes.grid(axis="y", color=GRID, linewidth=points(1))
        axes.axhline(whole[index], color=INK, linewidth=points(1.4), linestyle=(0, (5, 4)))
        for i, share in enumerate(shares):
            of = sorted((p for p in points_ if p.share == share), key=lambda p: p.kept)
            x = [kept.index(p.kept) + 0.06 * (i - (len(shares) - 1) / 2) for p in of]
            colour = PALETTE[i % len(PALETTE)]
            for figures, style in ((control, (0, (1.5, 2.5))), (own, "-")):
                y = [getattr(p, figures) for p in of]
                solid = style == "-"
                axes.plot(x, [v[0] for v in y], color=colour, linestyle=style, linewidth=points(3 if solid else 2.2), zorder=2 + solid)
                if solid:
                    axes.plot(x, [v[0] for v in y], "o", color=colour, markersize=points(8), zorder=4)
                    axes.vlines(x, [v[1] for v in y], [v[2] for v in y], color=colour, linewidth=points(1.6), zorder=3)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(-0.3, len(kept) - 0.7)
        axes.set_xticks(range(len(kept)), [str(k) for k in kept])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"] if index == 0 else ["0", "0.25", "0.5", "0.75", "1"])
        if recommended in kept:
            axes.axvline(kept.index(recommended), color=PALETTE[5], linewidth=points(7), alpha=0.25, zorder=1)
    y = TITLE + PANEL
    write(figure, WIDTH / 2, y + 2, "neurons kept in each layer, of each class", 15, FAINT, ha="center")
    write(figure, 24, y + 26, "other neurons zeroed with a probability of", 14, FAINT)
    for i, share in enumerate(shares):
        write(figure, 330 + 84 * i, y + 26, f"{share:.0%}", 16, PALETTE[i % len(PALETTE)], weight="bold")
    write(figure, 24, y + 48, "dotted: as many random neurons kept; dashed: the whole model; bars: 95% over images", 14, FAINT)
    advice = (
        f"recommended: keep {recommended} (pink)" if recommended is not None else "every number loses more than a point, all others zeroed"
    )
    write(figure, 24, y + 70, f"{advice}. Zeroing saves neither time nor memory.", 14, INK)
    return pixels(figure)
