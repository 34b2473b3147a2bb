"""What labels look like: shares of the classes with their unsure part, and a sheet of images per class, surest and least sure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ...metrics.fairness import UNSURE_BELOW
from ..core.histogram import DIAMOND
from ..core.missing import chart
from ..core.sheet import contact_sheet, stacked
from ..core.style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, HEAD, BAR, AXIS, GAP, LEGEND = 960, 24, 56, 46, 34, 18, 52
TILE = 96
PAD_COLOUR = 255
Floats = NDArray[np.float64]


@chart
def label_chart(readings: Mapping[str, ArrayLike | Tensor], classes: Mapping[str, Sequence[str]], title: str = "") -> Image:
    """Draw the classes' shares as bars, one panel per attribute: uint8 [H, 960, 3].

    readings: attribute -> class probabilities [N, K]. A bar's dark part are images whose highest probability is at least 0.8, its light
    part the unsure ones. Raises ValueError without attributes or images.
    """
    tables = {a: _table(p) for a, p in readings.items()}
    if not tables or any(not len(t) for t in tables.values()):
        raise ValueError("a label chart needs at least one attribute and one image; met none.")
    top = 54 if title else 12
    height = top + sum(HEAD + BAR * len(classes[a]) + AXIS + GAP for a in tables) + LEGEND
    figure = new_figure(WIDTH, height)
    if title:
        write(figure, MARGIN, 16, title, 24, weight="bold")
    left = MARGIN + 16 + min(260, max(60, 11 * max(len(c) for a in tables for c in classes[a])))
    for attribute, table in tables.items():
        hard, unsure = table.argmax(1), table.max(1) < UNSURE_BELOW
        write(figure, MARGIN, top, attribute, 22, weight="bold")
        write(figure, MARGIN, top + 28, f"{len(table)} images, unsure {unsure.mean():.1%}", 16, FAINT)
        names = list(classes[attribute])
        counts = np.bincount(hard, minlength=len(names))
        doubtful = np.bincount(hard[unsure], minlength=len(names))
        axes = add_axes(figure, left, top + HEAD, WIDTH - left - 250, BAR * len(names))
        limit = max(0.05, float(counts.max()) / len(table), float(table.mean(0).max())) * 1.02
        for row, (count, doubt) in enumerate(zip(counts, doubtful, strict=True)):
            sure = (count - doubt) / len(table)
            axes.barh(row, sure, height=0.62, color=PALETTE[0], zorder=2)
            axes.barh(row, doubt / len(table), left=sure, height=0.62, color=PALETTE[4], zorder=2)
            axes.plot(table[:, row].mean(), row, zorder=7, clip_on=False, **DIAMOND)
            text = f"{count / len(table):.1%} ({count}), {doubt} unsure" if count else "no image"
            axes.text(limit * 1.015, row, text, va="center", fontsize=points(18), color=INK if count else PALETTE[3])
        axes.set_xlim(0, limit)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names, fontsize=points(18), color=INK, parse_math=False)
        step = 0.2 if limit > 0.5 else 0.1 if limit > 0.25 else 0.05 if limit > 0.1 else 0.01
        ticks = [i * step for i in range(int(limit / step + 1e-9) + 1)]
        axes.set_xticks(ticks, [f"{t:.0%}" for t in ticks], color=FAINT)
        axes.grid(axis="x", color=GRID, linewidth=points(1))
        top += HEAD + BAR * len(names) + AXIS + GAP
    _legend(figure)
    return pixels(figure)


def surest_and_least_sure(table: ArrayLike | Tensor, index: int, most: int) -> tuple[list[int], list[int]]:
    """Choose the images of a class that are labelled most and least surely.

    The surest first, and the least sure first.

    table: class probabilities [N, K]. Half of ``most`` each, at least one; no image is in both.
    """
    p = _table(table)
    members = np.flatnonzero(p.argmax(1) == index)
    order = members[np.argsort(-p[members, index], kind="stable")].tolist()
    half = max(1, most // 2)
    surest = order[:half]
    return surest, order[len(surest) :][::-1][:half]


def class_sheet(
    attribute: str, name: str, table: ArrayLike | Tensor, index: int, most: int, images: Callable[[list[int]], ArrayLike]
) -> Image:
    """Draw a sheet of a class's surest and least sure images: uint8 [H, W, 3].

    table: class probabilities [N, K]; ``images(indices)`` gives those images, [n, 3, H, W] in 0..1 or uint8; it is asked twice at most.
    """
    p = _table(table)
    count = int((p.argmax(1) == index).sum())
    surest, doubtful = surest_and_least_sure(p, index, most)
    if not surest:
        blank = np.full((1, 3, TILE, TILE), 0.9)
        return contact_sheet(blank, caption=f"{attribute}: {name}", note="no image is labelled so", tile=TILE)
    columns = min(12, max(6, most // 2))

    def part(chosen: list[int], caption: str, note: str) -> Image:
        frames = [0 if p[i].max() >= UNSURE_BELOW else -1 for i in chosen]
        return contact_sheet(images(chosen), frames, caption=caption, note=note, columns=columns, tile=TILE)

    ends = f"{p[surest[0], index]:.2f} to {p[surest[-1], index]:.2f}"
    parts = [part(surest, f"{attribute}: {name}", f"{count} of {len(p)} images; the surest, probability {ends}")]
    if doubtful:
        ends = f"{p[doubtful[0], index]:.2f} to {p[doubtful[-1], index]:.2f}"
        parts.append(part(doubtful, "", f"the least sure, probability {ends}; unframed below {UNSURE_BELOW:g}"))
    return stacked(parts)


def same_size(sheets: Sequence[Image]) -> NDArray[np.uint8]:
    """Stack sheets as one batch [N, H, W, 3], padded with white.

    At the right and at the bottom. Raises ValueError without sheets.
    """
    if not sheets:
        raise ValueError("nothing to put together: at least one sheet is needed.")
    h, w = max(s.shape[0] for s in sheets), max(s.shape[1] for s in sheets)
    batch = np.full((len(sheets), h, w, 3), PAD_COLOUR, dtype=np.uint8)
    for i, sheet in enumerate(sheets):
        batch[i, : sheet.shape[0], : sheet.shape[1]] = sheet
    return batch


def _table(p: ArrayLike | Tensor) -> Floats:
    return np.asarray(p.detach().cpu() if isinstance(p, Tensor) else p, dtype=np.float64)


def _legend(figure: object) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Patch(color=PALETTE[0]), Patch(color=PALETTE[4]), Line2D([], [], **DIAMOND)]
    texts = [f"probability {UNSURE_BELOW:g} or more", "unsure", "mean probability"]
    legend_at = {"loc": "lower left", "bbox_to_anchor": (0.012, 0.0), "ncols": 3}
    figure.legend(handles, texts, frameon=False, fontsize=points(16), labelcolor=INK, **legend_at)
