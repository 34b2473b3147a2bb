"""Contact sheets: many small images at once, framed by what was read in them; before beside after."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image as Picture
from PIL import ImageDraw
from torch import Tensor

from .style import FAINT, INK, PALETTE, Image, font

GAP, FRAME, PAD = 6, 4, 16
WHITE = (255, 255, 255)


def contact_sheet(
    images: Tensor | ArrayLike,
    labels: Sequence[int] | Tensor | None = None,
    classes: Sequence[str] = (),
    caption: str = "",
    note: str = "",
    columns: int | None = None,
    tile: int = 72,
) -> Image:
    """Draw one sheet of images: uint8 [H, W, 3].

    images [N, 3, H, W], float in 0..1 or uint8. labels [N]: class indices, shown as frames in the classes' colours with a legend and
    counts; a negative one leaves an image unframed. caption: one line above; note: one smaller line under it. tile: pixels of the longer
    side of a shown image; small images are enlarged by whole factors, nearest neighbour, so that what is seen is what was made.

    Raises ValueError where there are no images, or not one label per image.
    """
    pictures = tiles(images, tile)
    chosen = None if labels is None else [int(x) for x in labels]
    if chosen is not None and len(chosen) != len(pictures):
        raise ValueError(f"a contact sheet needs one label per image, and there are {len(pictures)} images and {len(chosen)} labels.")
    if chosen is not None and max(chosen) >= max(1, len(classes)):
        raise ValueError(f"a contact sheet needs a name for every class, and class index {max(chosen)} has none ({len(classes)} names).")
    w, h = pictures[0].size
    columns = columns or max(1, math.ceil(math.sqrt(len(pictures) * h / w)))
    rows = math.ceil(len(pictures) / columns)
    step_x, step_y = w + 2 * FRAME + GAP, h + 2 * FRAME + GAP
    head = (34 if caption else 0) + (24 if note else 0)
    width = max(2 * PAD + columns * step_x - GAP, text_width(caption, 22) + 2 * PAD, text_width(note, 15) + 2 * PAD)
    legend = _legend_lines(chosen, classes, width - 2 * PAD)
    grid = PAD + head
    height = grid + rows * step_y - GAP + PAD + 26 * len(legend)
    sheet = Picture.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(sheet)
    if caption:
        draw.text((PAD, PAD - 4), caption, INK, font(22))
    if note:
        draw.text((PAD, PAD - 4 + (32 if caption else 0)), note, FAINT, font(15))
    for i, picture in enumerate(pictures):
        x, y = PAD + i % columns * step_x, grid + i // columns * step_y
        if chosen is not None and chosen[i] >= 0:
            draw.rectangle((x, y, x + w + 2 * FRAME - 1, y + h + 2 * FRAME - 1), fill=colour(chosen[i]))
        sheet.paste(picture, (x + FRAME, y + FRAME))
    for line, entries in enumerate(legend):
        x, y = PAD, height - 26 * (len(legend) - line) - PAD // 2 + 2
        for index, text, room in entries:
            draw.rectangle((x, y + 2, x + 15, y + 17), fill=colour(index))
            draw.text((x + 22, y - 1), text, INK, font(16))
            x += room
    return np.asarray(sheet)


def side_by_side(left: Image, right: Image, gap: int = 24) -> Image:
    """Place two sheets or charts next to each other: uint8 [H, W, 3].

    Aligned at the top, on white.
    """
    return _joined([left, right], gap, axis=1)


def stacked(parts: Sequence[Image], gap: int = 8) -> Image:
    """Place sheets or charts one below the other: uint8 [H, W, 3].

    Aligned at the left, on white.
    """
    return _joined(parts, gap, axis=0)


def colour(index: int) -> str:
    """Return the colour of the frames of a class."""
    return PALETTE[index % len(PALETTE)]


def _joined(parts: Sequence[Image], gap: int, axis: int) -> Image:
    if not parts:
        raise ValueError("there is nothing to join: at least one picture is needed.")
    across = 1 - axis
    length = sum(p.shape[axis] for p in parts) + gap * (len(parts) - 1)
    breadth = max(p.shape[across] for p in parts)
    canvas = np.full((length, breadth, 3) if axis == 0 else (breadth, length, 3), 255, dtype=np.uint8)
    at = 0
    for part in parts:
        h, w = part.shape[:2]
        y, x = (at, 0) if axis == 0 else (0, at)
        canvas[y : y + h, x : x + w] = part
        at += part.shape[axis] + gap
    return canvas


def tiles(images: Tensor | ArrayLike, size: int) -> list[Picture.Image]:
    """Scale images to tiles of at most ``size`` pixels.

    Images [N, 3, H, W], float in 0..1 or uint8; small ones are enlarged by whole factors. Raises ValueError without images.
    """
    array = np.asarray(images.detach().cpu() if isinstance(images, Tensor) else images)
    if array.ndim != 4 or not len(array) or array.shape[1] not in (1, 3):
        raise ValueError(f"a contact sheet needs images of shape [N, 3, H, W], at least one, and got the shape {list(array.shape)}.")
    if array.dtype != np.uint8:
        array = (np.nan_to_num(array.astype(np.float32)).clip(0, 1) * 255).round().astype(np.uint8)
    array = np.broadcast_to(array, (array.shape[0], 3, *array.shape[2:])).transpose(0, 2, 3, 1)
    h, w = array.shape[1:3]
    pictures = [Picture.fromarray(np.ascontiguousarray(a)) for a in array]
    if max(h, w) <= size:
        factor = size // max(h, w)
        return [p.resize((w * factor, h * factor), Picture.Resampling.NEAREST) for p in pictures]
    scale = size / max(h, w)
    return [p.resize((max(1, round(w * scale)), max(1, round(h * scale))), Picture.Resampling.LANCZOS) for p in pictures]


def _legend_lines(labels: list[int] | None, classes: Sequence[str], width: int) -> list[list[tuple[int, str, int]]]:
    """Break the legend's entries into lines of at most ``width`` pixels.

    Entries (class index, text, pixels).
    """
    if labels is None or not classes:
        return []
    lines: list[list[tuple[int, str, int]]] = [[]]
    for index, name in enumerate(classes):
        text = f"{name}: {labels.count(index)} of {len(labels)}"
        room = 22 + text_width(text, 16) + 22
        if lines[-1] and sum(e[2] for e in lines[-1]) + room > width:
            lines.append([])
        lines[-1].append((index, text, room))
    return lines


def text_width(text: str, size: int) -> int:
    """Measure the width of a line of text in pixels."""
    return math.ceil(font(size).getlength(text)) if text else 0
