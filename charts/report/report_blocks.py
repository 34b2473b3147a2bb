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
    """Paragraphs."""

    texts: tuple[str, ...]
    """The paragraphs."""
    warning: bool = False
    """Whether they are set apart as warnings."""


@dataclass(frozen=True)
class Table:
    """Text in rows and columns."""

    heads: tuple[str, ...]
    """Heads of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """The rows; the first column names the row."""


@dataclass(frozen=True)
class Shares:
    """Shares of classes as classifiers count them, side by side where there are two."""

    judged: tuple[Judged, ...]
    """Figures by classifier."""


@dataclass(frozen=True)
class Changes:
    """Change of the shares of attributes, class by class."""

    reports: tuple[DriftReport, ...]
    """A report per attribute."""


@dataclass(frozen=True)
class Sheet:
    """Some of the images that are read as one class, of both sets."""

    name: str
    """Name of the class."""
    base: Pictures | None
    """Base images uint8 [N, 3, H, W]; None without."""
    base_count: int
    """Base images of the class."""
    base_total: int
    """All base images."""
    steered: Pictures | None
    """Steered images; None without."""
    steered_count: int
    """Steered images of the class."""
    steered_total: int
    """All steered images."""


Block = Lines | Table | Shares | Changes | Sheet


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it."""

    title: str
    """The heading."""
    blocks: tuple[Block, ...]
    """What stands below it."""


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    """Title of the page."""
    subtitle: str
    """Line below the title."""
    sections: tuple[Section, ...]
    """Its sections."""


def sheet_caption(sheet: Sheet, steered: bool) -> str:
    """Write a sheet's caption, as "base: 3 of 16 images".

    Or "steered: 24 of the 61 images (of 128)".
    """
    name, count, total, shown = (
        ("steered", sheet.steered_count, sheet.steered_total, sheet.steered)
        if steered
        else ("base", sheet.base_count, sheet.base_total, sheet.base)
    )
    if not count:
        return f"{name}: none of {total} images"
    pictures = 0 if shown is None else len(shown)
    return f"{name}: {count} of {total} images" + (f", the first {pictures}" if pictures < count else "")
