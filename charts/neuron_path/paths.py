"""Neuron paths drawn: a column per layer, a dot per neuron, a line per image, and below each column how far images agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.missing import chart
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, LEFT, RIGHT, TITLE, FOOT = 960, 78, 28, 84, 58
HEAD, COLUMNS, BARS, GAP = 58, 270, 52, 40
"""Heights of a panel's parts: its two lines of text, the columns of layers, the agreement bars, and what follows."""
MORE, LESS = "#B2182B", "#2166AC"
"""Neurons that speak for the class, and against it: colours that people with the common colour-vision deficiencies can tell apart."""
MOST_LINES, MOST_PANELS, MOST_NAMES = 200, 4, 12
LARGEST = 15.0

Whole, Floats = NDArray[np.int64], NDArray[np.float32]


@dataclass(frozen=True)
class PathPanel:
    """Paths of one class."""

    name: str
    """Name of the class."""
    path: Whole
    """Neurons of each image, [B, L, K]."""
    contribution: Floats
    """What each neuron adds, [B, L, K]."""
    bold: Whole
    """The class's path, which may be that of one image, [L, K]."""
    agreement: Floats
    """Share of images whose path holds the layer's most frequent neuron, [L]."""
    note: str = ""
    """A line on its scores."""


@chart
def neuron_path_chart(title: str, neurons: int, panels: Sequence[PathPanel], caption: str = "") -> Image:
    """Draw the paths of classes, a panel each: uint8 [H, 960, 3].

    One below the other.

    ``neurons``: of a layer. Classes beyond 4 are named and left out.

    Raises ValueError without panels, or where the parts of one do not belong together.
    """
    if not panels:
        raise ValueError("a picture of neuron paths needs the paths of a class; met none.")
    for p in panels:
        if p.path.shape != p.contribution.shape or p.bold.shape != p.path.shape[1:] or len(p.agreement) != p.path.shape[1]:
            raise ValueError(
                f"a picture of neuron paths of the shape {list(p.path.shape)} met contributions {list(p.contribution.shape)}, a class path "
                f"{list(p.bold.shape)} and agreement {list(p.agreement.shape)}."
            )
    shown = list(panels[:MOST_PANELS])
    tall = HEAD + COLUMNS + BARS + GAP
    figure = new_figure(WIDTH, TITLE + tall * len(shown) + FOOT)
    write(figure, 24, 18, title, 24, weight="bold")
    write(figure, 24, 52, caption, 16, FAINT)
    largest = max(float(np.nanmax(np.abs(p.contribution), initial=0.0)) for p in shown) or 1.0
    for number, panel in enumerate(shown):
        _panel(figure, TITLE + number * tall, panel, neurons, largest)
    _legend(figure, TITLE + tall * len(shown) - 12, largest, [p.name for p in panels[MOST_PANELS:]])
    return pixels(figure)


def _panel(figure: object, top: float, panel: PathPanel, neurons: int, largest: float) -> None:
    images, depth, _ = panel.path.shape
    count = f"{images} image{'s' if images > 1 else ''}"
    write(figure, 24, top, panel.name, 20, INK, weight="bold")
    write(figure, 24, top + 28, f"{count}{'; ' if panel.note else ''}{panel.note}", 15, FAINT)
    axes = add_axes(figure, LEFT, top + HEAD, WIDTH - LEFT - RIGHT, COLUMNS)
    x = np.arange(depth)
    for layer in x:
        axes.axvline(layer, color=GRID, linewidth=points(1), zorder=0)
    lines = panel.path[:MOST_LINES, :, 0].T / neurons
    axes.plot(x, lines, color=FAINT, linewidth=points(1.2), alpha=max(0.06, min(0.4, 2.5 / images)), zorder=1)
    axes.plot(x, panel.bold[:, 0] / neurons, color=INK, linewidth=points(3.2), zorder=2)
    _dots(axes, panel, neurons, largest)
    if depth <= MOST_NAMES:
        _names(axes, panel, neurons)
    axes.set_xlim(-0.5, depth - 0.5)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([0, 0.5, 1], ["0", f"{neurons // 2}", f"{neurons}"], fontsize=points(14), color=FAINT)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    write(figure, 8, top + HEAD + COLUMNS / 2, "neuron", 14, FAINT, rotation=90, va="center")
    _agreement(figure, top + HEAD + COLUMNS, panel)


def _dots(axes: object, panel: PathPanel, neurons: int, largest: float) -> None:
    """Draw each neuron's dot once.

    It lies at the mean of what the neuron adds in the paths that hold it.
    """
    by_neuron: dict[tuple[int, int], list[float]] = {}
    for layer in range(panel.path.shape[1]):
        for j, value in zip(panel.path[:, layer].ravel(), panel.contribution[:, layer].ravel(), strict=True):
            by_neuron.setdefault((layer, int(j)), []).append(float(value))
    chosen = {(layer, int(j)) for layer, row in enumerate(panel.bold) for j in row}
    for bold in (False, True):
        some = [(at, values) for at, values in by_neuron.items() if (at in chosen) == bold]
        if not some:
            continue
        means = np.nan_to_num([np.mean(values) for _, values in some])
        shares = np.array([len(values) / len(panel.path) for _, values in some])
        axes.scatter(
            [layer for (layer, _), _ in some],
            [j / neurons for (_, j), _ in some],
            s=points(1.6 * (4 + (LARGEST - 4) * np.sqrt(np.abs(means) / largest))) ** 2,
            c=[MORE if m >= 0 else LESS for m in means],
            alpha=None if bold else 0.25 + 0.6 * shares,
            edgecolors=INK if bold else "white",
            linewidths=points(1.6 if bold else 0.6),
            zorder=4 if bold else 3,
        )
    for layer, j in chosen - set(by_neuron):  # of a class path, and on that of no image
        axes.plot(layer, j / neurons, "o", markersize=points(11), color="white", markeredgecolor=INK, markeredgewidth=points(1.6), zorder=4)


def _names(axes: object, panel: PathPanel, neurons: int) -> None:
    """Write the numbers of the class's neurons to the right of their dots.

    They stay readable over lines.
    """
    from matplotlib.patheffects import withStroke

    for layer, row in enumerate(panel.bold):
        j = int(row[0])
        side = "bottom" if j / neurons < 0.9 else "top"
        axes.annotate(
            f"{j}",
            (layer, j / neurons),
            xytext=(points(14), points(5 if side == "bottom" else -5)),
            textcoords="offset points",
            fontsize=points(13),
            color=INK,
            va=side,
            zorder=5,
            path_effects=[withStroke(linewidth=points(4), foreground="white")],
        )


def _agreement(figure: object, top: float, panel: PathPanel) -> None:
    depth = panel.path.shape[1]
    axes = add_axes(figure, LEFT, top, WIDTH - LEFT - RIGHT, BARS)
    axes.set_xlim(-0.5, depth - 0.5)
    axes.set_ylim(1.0, 0)
    axes.bar(np.arange(depth), panel.agreement, width=0.62, color=PALETTE[4])
    if depth <= MOST_NAMES:
        for layer, share in enumerate(panel.agreement):
            axes.text(layer, 0.06, f"{share:.0%}", ha="center", va="top", fontsize=points(13), color=INK)
    axes.set_yticks([0, 1], ["", "100%"], fontsize=points(12), color=FAINT)
    axes.set_xticks(np.arange(depth), [str(i) for i in range(depth)], fontsize=points(14), color=FAINT)
    axes.spines["bottom"].set_visible(False)
    axes.axhline(0, color=FAINT, linewidth=points(1.5))


def _legend(figure: object, y: float, largest: float, left_out: Sequence[str]) -> None:
    write(figure, 24, y, "column: a layer; bar below it: share of images that choose its most frequent neuron", 14, FAINT)
    write(figure, 24, y + 20, f"dot: a neuron; its size: what it adds (at most {largest:.3g})", 14, FAINT)
    write(figure, 480, y + 20, "it speaks for the class", 14, MORE)
    write(figure, 660, y + 20, "it speaks against it", 14, LESS)
    write(figure, 24, y + 40, "thin line: an image; thick line and ringed dots: the path of the class", 14, FAINT)
    if left_out:
        write(figure, 560, y + 40, f"not shown: {', '.join(left_out)[:44]}", 14, FAINT)
