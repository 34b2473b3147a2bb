"""What a fairness report's page consists of, before it is drawn or written as HTML: text, tables, bars, pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...metrics.drift import DriftReport
from ...metrics.findings import Judged

Pictures = NDArray[np.uint8]
"""[N, 3, H, W]."""


@dataclass(frozen=True)
class Lines:
    """Paragraphs; as warnings they are set apart from the rest."""

    texts: tuple[str, ...]
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first column names the row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Shares:
    """Shares of classes as classifiers count them, side by side where there are two."""

    judged: tuple[Judged, ...]


@dataclass(frozen=True)
class Changes:
    """Change of the shares of attributes, class by class."""

    reports: tuple[DriftReport, ...]


@dataclass(frozen=True)
class Sheet:
    """Some of the images that are read as one class: of the base images and of the steered ones, with how many there are in all.

    ``base`` and ``steered`` are uint8 [N, 3, H, W], None where there are none.
    """

    name: str
    base: Pictures | None
    base_count: int
    base_total: int
    steered: Pictures | None
    steered_count: int
    steered_total: int


Block = Lines | Table | Shares | Changes | Sheet


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def sheet_caption(sheet: Sheet, steered: bool) -> str:
    """ "base: 3 of 16 images", "steered: 24 of the 61 images (of 128)"."""
    name, count, total, shown = (
        ("steered", sheet.steered_count, sheet.steered_total, sheet.steered)
        if steered
        else ("base", sheet.base_count, sheet.base_total, sheet.base)
    )
    if not count:
        return f"{name}: none of {total} images"
    pictures = 0 if shown is None else len(shown)
    return f"{name}: {count} of {total} images" + (f", the first {pictures}" if pictures < count else "")
