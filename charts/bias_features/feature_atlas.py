"""Features seen: the images that excite each most, with the heat of its activation over them, its noise levels and its class scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..core.heat import fitted, heat_over, pasted
from ..core.missing import chart
from ..core.style import FAINT, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, MARGIN, TITLE, HEAD, FOOT, PAD = 960, 24, 60, 26, 48, 14
TILE, TILE_GAP, TEXT = 92, 5, 112
NOISE_WIDTH, SCORE_WIDTH = 128, 150


@dataclass(frozen=True)
class AtlasRow:
    """One feature."""

    name: str
    """Name of the feature."""
    images: Tensor | ArrayLike
    """Images [n, 3, H, W], float in 0..1 or uint8, most excited first."""
    heat: Tensor | ArrayLike
    """Heat [n, h, w], not negative, on one scale for the row."""
    knots: Tensor | ArrayLike
    """Log-SNR [T]."""
    by_level: Tensor | ArrayLike
    """Mean activation by log-SNR, [T]."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Class -> score."""
    notes: Sequence[str] = ()
    """Short lines below its name."""


@chart
def feature_atlas(
    rows: Sequence[AtlasRow], title: str = "feature atlas", overlay: bool = True, legend: Sequence[str] = ()
) -> Image:
    """Draw a row of images per feature: uint8 [H, 960, 3].

    Images beyond what fits in a row (5) are left out.

    overlay: lay the heat over the images (else they are shown as they are). legend: lines below, on what the notes mean. Raises
    ValueError without rows, or where a row's images and heat do not belong together.
    """
    if not rows:
        raise ValueError("a feature atlas needs at least one feature; met none.")
    tall = TILE + PAD
    height = TITLE + HEAD + tall * len(rows) + FOOT + 16 * max(0, len(legend) - 2)
    figure = new_figure(WIDTH, height)
    write(figure, MARGIN, 18, title, 24, weight="bold")
    fit = (WIDTH - MARGIN - TEXT - NOISE_WIDTH - SCORE_WIDTH - 2 * MARGIN) // (TILE + TILE_GAP)
    left = MARGIN + TEXT
    noise = left + fit * (TILE + TILE_GAP) + 18
    score = noise + NOISE_WIDTH + 24
    classes = list(dict.fromkeys(c for r in rows for c in r.scores))
    longest = max((abs(v) for r in rows for v in r.scores.values()), default=0.0) or 1.0
    heads = [(MARGIN, "feature"), (left, "most excited images"), (noise, "at which noise")]
    heads += [(score, "speaks for")] if classes else []
    for x, text in heads:
        write(figure, x, TITLE, text, 14, FAINT)
    tiles: list[tuple[int, int, NDArray[np.float32]]] = []
    span = _span(rows)
    for number, row in enumerate(rows):
        top = TITLE + HEAD + number * tall
        write(figure, MARGIN, top + 8, row.name, 19, INK, weight="bold")
        for line, note in enumerate(row.notes[:4]):
            write(figure, MARGIN, top + 34 + 16 * line, note, 13, FAINT)
        for column, tile in enumerate(_tiles(row, fit, overlay)):
            tiles.append((top, left + column * (TILE + TILE_GAP), tile))
        _noise(figure, noise, top + 8, np.asarray(row.knots), np.asarray(row.by_level), span)
        if classes:
            _scores(figure, score, top + 2, row.scores, classes, longest)
    bottom = TITLE + HEAD + tall * len(rows) + 2
    write(figure, noise, bottom, f"{span[0]:.0f}  noise", 13, FAINT)
    write(figure, noise + NOISE_WIDTH, bottom, f"image  {span[1]:.0f}", 13, FAINT, ha="right")
    write(figure, noise + NOISE_WIDTH / 2, bottom + 16, "log-SNR", 13, FAINT, ha="center")
    for line, text in enumerate(legend):
        write(figure, MARGIN, bottom + 16 * line, text, 13, FAINT)
    return pasted(pixels(figure), tiles)


def _tiles(row: AtlasRow, fit: int, overlay: bool) -> list[NDArray[np.float32]]:
    images = np.asarray(row.images.detach().cpu() if isinstance(row.images, Tensor) else row.images)
    heat = np.asarray(row.heat.detach().cpu() if isinstance(row.heat, Tensor) else row.heat, dtype=np.float32)
    if images.ndim != 4 or images.shape[1] != 3 or heat.ndim != 3 or len(heat) != len(images) or not len(images):
        raise ValueError(
            f"a row of a feature atlas needs images [N, 3, H, W] and as many maps of heat [N, h, w]; met {list(images.shape)} and "
            f"{list(heat.shape)}."
        )
    array = images.astype(np.float32) if images.dtype == np.uint8 else np.nan_to_num(images.astype(np.float32)).clip(0, 1) * 255
    most = float(heat.max()) or 1.0
    pictures = [fitted(picture, TILE) for picture in array[:fit].transpose(0, 2, 3, 1)]
    if not overlay:
        return pictures
    return [heat_over(picture, warmth, most) for picture, warmth in zip(pictures, heat[:fit], strict=True)]


def _noise(figure: object, x: float, y: float, knots: NDArray[np.float32], values: NDArray[np.float32], span: tuple[float, float]) -> None:
    axes = add_axes(figure, x, y, NOISE_WIDTH, TILE - 16)
    axes.set_xlim(*span)
    axes.set_ylim(0, (float(values.max()) or 1.0) * 1.08)
    axes.fill_between(knots, values, color=PALETTE[0], alpha=0.28, linewidth=0)
    axes.plot(knots, values, color=PALETTE[0], linewidth=points(2.2))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _scores(figure: object, x: float, y: float, scores: Mapping[str, float], classes: Sequence[str], longest: float) -> None:
    step = min(24.0, (TILE - 4) / len(classes))
    axes = add_axes(figure, x, y, SCORE_WIDTH, step * len(classes))
    axes.set_xlim(-longest * 1.05, longest * 1.05)
    axes.set_ylim(len(classes), 0)
    axes.axvline(0, color=FAINT, linewidth=points(1))
    for i, name in enumerate(classes):
        value = scores.get(name, 0.0)
        axes.barh(i + 0.5, value, height=0.62, color=PALETTE[i % len(PALETTE)])
        # The name stands on the empty side of the bar.
        side = -1 if value >= 0 else 1
        axes.text(
            side * longest * 0.06,
            i + 0.5,
            name,
            va="center",
            ha="right" if side < 0 else "left",
            fontsize=points(min(15, step * 0.7)),
            color=INK,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)


def _span(rows: Sequence[AtlasRow]) -> tuple[float, float]:
    low = min(float(np.asarray(r.knots).min()) for r in rows)
    high = max(float(np.asarray(r.knots).max()) for r in rows)
    return (low, high) if low < high else (low - 1, high + 1)
