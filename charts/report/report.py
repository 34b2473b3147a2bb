"""A fairness report's page as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from ..core.histogram import histogram
from ..core.sheet import PAD, contact_sheet, side_by_side, stacked, text_width
from ..core.style import FAINT, INK, Image, font
from .report_blocks import Block, Changes, Lines, Page, Section, Shares, Sheet, Table, sheet_caption
from .report_drift import drift_chart

WIDTH, GAP = 960, 24
MARGIN = 24
TILE = 72
AMBER, AMBER_EDGE, LINE, SHADE = "#FFF6DF", "#E69F00", "#DDDDDD", "#F4F4F4"


def draw_page(page: Page) -> Image:
    """Draw the page: uint8 [H, W, 3].

    960 pixels wide, or 1944 if two classifiers stand side by side.
    """
    two = any(isinstance(b, Shares) and len(b.judged) > 1 for s in page.sections for b in s.blocks)
    width = 2 * WIDTH + GAP if two else WIDTH
    parts = [_text([page.title], width, 34, INK, bold_space=18)]
    if page.subtitle:
        parts.append(_text([page.subtitle], width, 17, FAINT))
    for section in page.sections:
        parts += _section(section, width)
    return stacked([*parts, _blank(width, MARGIN)], gap=0)


def draw_summary(page: Page) -> Image:
    """Draw the title and the first section of a page, for a node that has no room for all: uint8 [H, W, 3]."""
    return draw_page(Page(page.title, page.subtitle, page.sections[:1]))


def _section(section: Section, width: int) -> list[Image]:
    drawn = [_rule(width), _text([section.title], width, 25, INK, bold_space=6)]
    for block in section.blocks:
        drawn.append(_block(block, width))
    return drawn


def _block(block: Block, width: int) -> Image:
    if isinstance(block, Lines):
        return _warning(block.texts, width) if block.warning else _text(block.texts, width, 17, INK)
    if isinstance(block, Table):
        return _table(block, width)
    if isinstance(block, Shares):
        charts = [histogram(j.panels, ("steered", "base"), title=j.name) for j in block.judged]
        return _fitted(charts[0] if len(charts) == 1 else side_by_side(charts[0], charts[1], GAP), width)
    if isinstance(block, Changes):
        return _fitted(drift_chart(block.reports), width)
    return _sheet(block, width)


def _sheet(sheet: Sheet, width: int) -> Image:
    """Draw base images on the left, steered ones on the right."""
    half = (width - GAP) // 2
    columns = max(1, (half - 2 * PAD) // (TILE + 14))
    sides = []
    for steered in (False, True):
        pictures, text = sheet.steered if steered else sheet.base, sheet_caption(sheet, steered)
        if pictures is None:
            sides.append(_text([text], half, 17, FAINT))
        else:
            sides.append(_fitted(contact_sheet(pictures, caption=text, columns=min(columns, len(pictures)), tile=TILE), half))
    return stacked([_text([sheet.name], width, 20, INK), side_by_side(*sides, gap=GAP)], gap=0)


def _fitted(picture: Image, width: int) -> Image:
    """Place a picture on white of this width.

    It is shrunk if it is wider.
    """
    if picture.shape[1] > width:
        size = width, round(picture.shape[0] * width / picture.shape[1])
        picture = np.asarray(Picture.fromarray(picture).resize(size, Picture.Resampling.LANCZOS))
    canvas = np.full((picture.shape[0], width, 3), 255, dtype=np.uint8)
    canvas[:, : picture.shape[1]] = picture
    return canvas


def _blank(width: int, height: int) -> Image:
    return np.full((height, width, 3), 255, dtype=np.uint8)


def _rule(width: int) -> Image:
    canvas = _blank(width, 34)
    canvas[22, MARGIN : width - MARGIN] = 0xDD
    return canvas


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Break text into lines of at most ``width`` pixels.

    A single word that is wider is cut.
    """
    lines, line = [], ""
    for word in text.split():
        while text_width(word, size) > width and len(word) > 1:
            cut = next((k for k in range(len(word), 0, -1) if text_width(word[:k], size) <= width), 1)
            lines += [line, word[:cut]] if line else [word[:cut]]
            line, word = "", word[cut:]
        longer = f"{line} {word}".strip()
        if line and text_width(longer, size) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line or not lines else lines


def _text(texts: Sequence[str], width: int, size: int, colour: str, bold_space: int = 0) -> Image:
    inner, step = width - 2 * MARGIN, round(size * 1.4)
    paragraphs = [wrapped(t, inner, size) for t in texts]
    height = sum(len(p) * step + 6 for p in paragraphs) + 8 + bold_space
    picture = Picture.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(picture), 4 + bold_space // 2
    for lines in paragraphs:
        for line in lines:
            draw.text((MARGIN, y), line, colour, font(size))
            y += step
        y += 6
    return np.asarray(picture)


def _warning(texts: Sequence[str], width: int) -> Image:
    inner = _text(texts, width - 2 * MARGIN, 17, INK)
    picture = Picture.new("RGB", (width, inner.shape[0] + 20), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((MARGIN, 8, width - MARGIN, inner.shape[0] + 12), fill=AMBER, outline=AMBER_EDGE, width=2)
    y = 14
    for text in texts:
        for line in wrapped(text, width - 4 * MARGIN, 17):
            draw.text((2 * MARGIN, y), line, INK, font(17))
            y += round(17 * 1.4)
        y += 6
    return np.asarray(picture)


def _table(table: Table, width: int) -> Image:
    size, pad, step = 15, 8, 21
    inner = width - 2 * MARGIN
    wanted = [max([text_width(h, size), *(text_width(r[i], size) for r in table.rows)]) + 2 * pad for i, h in enumerate(table.heads)]
    widths = _shared(wanted, inner)
    lines = [[wrapped(cell, w - 2 * pad, size) for cell, w in zip(row, widths, strict=True)] for row in (table.heads, *table.rows)]
    heights = [max(map(len, row)) * step + 10 for row in lines]
    picture = Picture.new("RGB", (width, sum(heights) + 16), "white")
    draw, y = ImageDraw.Draw(picture), 6
    for number, (row, height) in enumerate(zip(lines, heights, strict=True)):
        if not number:
            draw.rectangle((MARGIN, y, MARGIN + sum(widths), y + height), fill=SHADE)
        x = MARGIN
        for cell, w in zip(row, widths, strict=True):
            for k, line in enumerate(cell):
                draw.text((x + pad, y + 4 + k * step), line, INK if number else FAINT, font(size))
            x += w
        y += height
        draw.line((MARGIN, y, MARGIN + sum(widths), y), fill=LINE)
    return np.asarray(picture)


def _shared(wanted: Sequence[int], room: int) -> list[int]:
    """Divide the room among columns.

    Columns that need less than an equal part of what is left get what they need.
    """
    widths, open_columns, left = [0] * len(wanted), set(range(len(wanted))), room
    while open_columns:
        part = left // len(open_columns)
        modest = [i for i in open_columns if wanted[i] <= part]
        if not modest:
            for i in open_columns:
                widths[i] = part
            break
        for i in modest:
            widths[i] = wanted[i]
            left -= wanted[i]
            open_columns.remove(i)
    return widths
