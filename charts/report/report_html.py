"""A fairness report's page as one HTML file that asks no other host for anything, and holds no script.

Pictures are data URIs, shares and changes are drawn with plain boxes that keep their place at any width, tables become lists on a phone.
"""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from ...metrics.drift import DriftReport
from ...metrics.fairness import ShareReport
from ...metrics.panels import Panel
from .report_blocks import Block, Changes, Lines, Page, Section, Shares, Sheet, Table, sheet_caption
from .report_drift import scale_of, spoken
from .report_page import discrepancy
from .report_style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SMALL, LARGE, QUALITY = 64, 128, 85
"""Images of at most so many pixels are kept as they are; others are shown at most so large, as JPEG of that quality."""


def html_page(page: Page) -> str:
    """Write the page as one HTML document."""
    body = "\n".join(_section(section, number) for number, section in enumerate(page.sections))
    subtitle = f'\n<p class="subtitle">{escape(page.subtitle)}</p>' if page.subtitle else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta name="referrer" content="no-referrer">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(page.title)}</title>\n<style>\n{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n<h1>{escape(page.title)}</h1>{subtitle}\n{body}\n</main>\n</body>\n</html>\n"
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode a picture uint8 [3, H, W] as an image within the page."""
    picture = Picture.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    small = max(picture.size) <= SMALL
    if not small:
        picture.thumbnail((LARGE, LARGE), Picture.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, **({"format": "PNG", "optimize": True} if small else {"format": "JPEG", "quality": QUALITY}))
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _section(section: Section, number: int) -> str:
    blocks = "\n".join(_block(b) for b in section.blocks)
    return f'<section aria-labelledby="s{number}">\n<h2 id="s{number}">{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    if isinstance(block, Lines):
        inside = "".join(f"<p>{escape(t)}</p>" for t in block.texts)
        return f'<div class="warning" role="note">{inside}</div>' if block.warning else f"<div>{inside}</div>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Shares):
        sides = "".join(f'<div class="side"><h3>{escape(j.name)}</h3>{"".join(_panel(p) for p in j.panels)}</div>' for j in block.judged)
        return f'<div class="sides">{sides}</div>'
    if isinstance(block, Changes):
        limit = scale_of(block.reports)
        return "".join(_changes(r, limit) for r in block.reports)
    return _sheet(block)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in table.heads)
    rows = "".join(
        "<tr>"
        + "".join(f'<td data-head="{escape(h, quote=True)}">{escape(c)}</td>' for h, c in zip(table.heads, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.3f}%"


def _panel(panel: Panel) -> str:
    report, base = panel.report, panel.baseline
    rows = []
    for i, name in enumerate(report.classes):
        lines = [_bar(report, i, "steered")] + ([_bar(base, i, "base")] if base else [])
        aim = "target" if report.target_given else "equal"
        tick = f'<span class="tick {aim}" style="left:{_percent(report.target[i])}"></span>'
        numbers = f"{report.shares[i]:.1%} ({report.counts[i]})" + (
            f'<span class="of-base">{base.shares[i]:.1%} ({base.counts[i]})</span>' if base else ""
        )
        rows.append(
            f'<div class="row"><div class="name">{escape(name)}</div><div class="bars">{"".join(lines)}{tick}</div>'
            f'<div class="numbers">{numbers}<span class="aim">{aim} {report.target[i]:.1%}</span></div></div>'
        )
    floor = f"an independent fair sampler has {report.noise_floor:.3f} at n = {report.n}"
    before = f"; base images {base.fd:.3f}" if base else ""
    more = f"mean probabilities: FD {report.fd_soft:.3f}; deviation ratio {report.deviation:.3f}; entropy {report.entropy:.3f} nats"
    what = {"batches": f"batches of {report.batch} resampled", "images": "images resampled"}.get(report.resampled, "nothing to resample")
    return (
        f'<div class="panel"><h4>{escape(panel.name)}</h4><p class="figure">{escape(discrepancy(report) + before)}</p>'
        f'<p class="faint">{escape(floor)}; unsure {report.unsure:.1%}; {what}; {more}</p>'
        f"{''.join(rows)}{LEGEND}</div>"
    )


LEGEND = (
    '<p class="legend"><span class="key steered"></span>steered <span class="key base"></span>base '
    '<span class="key whisker-key"></span>95% interval <span class="key tick-key"></span>target (dashed: equal shares)</p>'
)


def _bar(report: ShareReport, i: int, which: str) -> str:
    whisker = ""
    if report.shares_low is not None and report.shares_high is not None:
        low, high = report.shares_low[i], report.shares_high[i]
        whisker = f'<span class="whisker" style="left:{_percent(low)};width:{_percent(high - low)}"></span>'
    return f'<div class="track"><span class="bar {which}" style="width:{_percent(report.shares[i])}"></span>{whisker}</div>'


def _changes(report: DriftReport, limit: float) -> str:
    def position(value: float) -> float:
        return 0.5 + 0.5 * value / limit

    rows = []
    for i, name in enumerate(report.classes):
        change = report.change[i]
        left, right = sorted((0.5, position(change)))
        whisker = ""
        if report.change_low is not None and report.change_high is not None:
            ends = position(report.change_low[i]), position(report.change_high[i])
            whisker = f'<span class="whisker" style="left:{_percent(ends[0])};width:{_percent(ends[1] - ends[0])}"></span>'
        rows.append(
            f'<div class="row"><div class="name">{escape(name)}</div><div class="bars centred"><div class="track">'
            f'<span class="bar steered" style="left:{_percent(left)};width:{_percent(right - left)}"></span>{whisker}'
            '<span class="zero"></span></div></div>'
            f'<div class="numbers">{100 * change:+.1f} points<span class="of-base">{report.before[i]:.1%} to {report.after[i]:.1%}</span>'
            "</div></div>"
        )
    scale = f"scale: {-100 * limit:g} to {100 * limit:+g} points"
    return (
        f'<div class="panel"><h4>{escape(report.attribute)}</h4><p class="faint">{escape(spoken(report))}; {scale}</p>{"".join(rows)}</div>'
    )


def _sheet(sheet: Sheet) -> str:
    sides = []
    for steered in (False, True):
        pictures = sheet.steered if steered else sheet.base
        images = "" if pictures is None else "".join(_image(p, sheet.name, i) for i, p in enumerate(pictures))
        grid = f'<div class="grid">{images}</div>' if images else ""
        sides.append(f'<div class="side"><p class="faint">{escape(sheet_caption(sheet, steered))}</p>{grid}</div>')
    return f'<div class="panel"><h3>{escape(sheet.name)}</h3><div class="sides">{"".join(sides)}</div></div>'


def _image(pixels: NDArray[np.uint8], name: str, number: int) -> str:
    h, w = pixels.shape[1:]
    shape = ' class="tiny"' if max(h, w) <= SMALL else ""
    return f'<img{shape} src="{data_uri(pixels)}" alt="{escape(name, quote=True)}, image {number + 1}" width="{w}" height="{h}">'
