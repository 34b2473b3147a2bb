"""The fairness report as a picture and as a page: what is on it, that it asks no one for anything, and that nothing in it can run."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from equipoise.charts.core.sheet import text_width
from equipoise.charts.report.report import draw_page, wrapped
from equipoise.charts.report.report_blocks import Changes, Lines, Page, Section, Shares, Sheet, Table, sheet_caption
from equipoise.charts.report.report_drift import drift_chart, scale_of
from equipoise.charts.report.report_html import POLICY, html_page
from equipoise.charts.report.report_page import cautions, headlines, report_page
from equipoise.metrics.drift import attribute_drift
from equipoise.metrics.findings import ComparisonSettings, Embedding, Findings, Reader, findings_of
from PIL import Image

CLASSES = {"glasses": ("yes", "no"), "hair": ("short", "long")}
NASTY = '<script>alert(1)</script> & "quoted" \''


def read(glasses: list[int], hair: list[int]) -> dict[str, np.ndarray]:
    return {"glasses": np.eye(2)[glasses], "hair": np.eye(2)[hair]}


def found(judges: int = 1, n: int = 32, target: bool = True, batch: int = 1) -> Findings:
    g = np.random.default_rng(0)
    base, steered = read([0] * (n // 8) + [1] * (n - n // 8), [0] * n), read([0, 1] * (n // 2), [0, 0, 0, 1] * (n // 4))
    readers = [Reader(f"judge {i}", CLASSES, base, steered, base) for i in range(judges)]
    goal = (("glasses",), (0.5, 0.5)) if target else None
    features = [Embedding("the judge", *(g.normal(size=(n, 4)) for _ in range(3)))]
    return findings_of(readers, [goal] * judges, features, comparison=ComparisonSettings(batch=batch))


def sheet(name: str = "yes", n: int = 3, size: int = 16) -> Sheet:
    pixels = np.random.default_rng(1).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    return Sheet(name, None, 0, 32, pixels, 40, 64)


def page(**options: Any) -> Page:
    given = {"settings": [(NASTY, "base", "steps=20")], "files": [("a.safetensors", "models", "1 MB", "ab" * 32)], "software": ["x 1.0"]}
    return report_page(found(**options), [sheet()], title=f"Report {NASTY}", subtitle="of today", warnings=[NASTY], **given)


class Reading(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_every_part() -> None:
    titles = [s.title for s in page(judges=2).sections]
    assert titles == [
        "In short",
        "Distribution",
        "Quality",
        "Drift of what was not targeted",
        "Can the judge be trusted here?",
        "Images by class, as the judge reads them",
        "Settings",
        "Files and software",
    ]
    bare = report_page(found(), [])
    assert [s.title for s in bare.sections] == titles[:4]


def test_what_is_in_short_is_what_was_found() -> None:
    f = found()
    lines = headlines(f)
    report = f.judged[0].panels[0].report
    assert lines[0].startswith("glasses, by judge 0: FD 0.000 [0.000, ") and "; base images 0.530" in lines[0]
    assert f"{report.noise_floor:.3f} by chance at 32 images" in lines[1]
    assert "hair, 'short' -25.0 points" in lines[2] or "hair, 'long' +25.0 points" in lines[2]
    assert lines[3].startswith("Same-seed similarity, the judge: cosine")


def test_cautions_name_what_weakens_the_figures() -> None:
    texts = " ".join(cautions(found(batch=8)))
    assert "32 images are few" in texts and "4 batches of 8 are few to resample" in texts
    assert cautions(found(n=256)) == []
    assert cautions(found(n=128, batch=128)) == [
        "All steered images are of one batch, and were resampled one by one: for quotas the interval is too wide."
    ]
    unsure = {"glasses": np.full((64, 2), 0.5) + np.array([[0.01, -0.01]]), "hair": np.eye(2)[[0] * 64]}
    second = Reader("k", CLASSES, read([1] * 64, [0] * 64), read([1] * 64, [0] * 64))
    f = findings_of([Reader("j", CLASSES, unsure, unsure), second], [None, None])
    assert "unsure (highest probability below 80%) on 100%" in " ".join(cautions(f))
    assert "judge and k agree on 0% of the base images only (glasses)" in " ".join(cautions(f))


def test_the_html_asks_no_one_for_anything_and_runs_nothing() -> None:
    document = html_page(page(judges=2))
    read_back = Reading(document)
    kinds = {tag for tag, _ in read_back.tags}
    assert not kinds & {"script", "iframe", "object", "embed", "form", "base", "video", "audio"}
    for tag, attributes in read_back.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset"):
                assert value is not None and value.startswith("data:"), (tag, value)
    assert "url(" not in document and "@import" not in document and "http://" not in document and "https://" not in document
    assert any(a.get("content") == POLICY for tag, a in read_back.tags if tag == "meta")
    assert any(a.get("name") == "viewport" for tag, a in read_back.tags if tag == "meta")


def test_text_is_shown_as_it_is_and_not_as_markup() -> None:
    document = html_page(page())
    assert "<script" not in document and document.count("&lt;script&gt;alert(1)") >= 4
    assert NASTY in Reading(document).text


def test_pictures_are_within_the_page() -> None:
    small, large = sheet("yes", 2, 16), sheet("no", 1, 300)
    document = html_page(Page("t", "", (Section("s", (small, large)),)))
    images = re.findall(r'<img([^>]*) src="data:image/(\w+);base64,([^"]+)"', document)
    assert [(kind, "tiny" in shape) for shape, kind, _ in images] == [("png", True), ("png", True), ("jpeg", False)]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for _, _, data in images]
    assert np.array_equal(decoded[0], small.steered[0].transpose(1, 2, 0)) and decoded[2].shape == (128, 128, 3)
    assert "base: none of 32 images" in document and "steered: 40 of 64 images, the first 2" in document


def test_bars_stand_where_the_shares_are() -> None:
    f = found()
    document = html_page(Page("t", "", (Section("s", (Shares(f.judged),)),)))
    widths = [float(w) for w in re.findall(r'class="bar \w+" style="width:([\d.]+)%"', document)]
    assert widths == [50.0, 12.5, 50.0, 87.5]  # steered then base, class by class
    assert [float(v) for v in re.findall(r'class="tick target" style="left:([\d.]+)%"', document)] == [50.0, 50.0]
    low, width = map(float, re.search(r'class="whisker" style="left:([\d.]+)%;width:([\d.]+)%"', document).groups())
    report = f.judged[0].panels[0].report
    assert low / 100 == pytest.approx(report.shares_low[0], abs=1e-4)
    assert (low + width) / 100 == pytest.approx(report.shares_high[0], abs=1e-4)


def test_without_a_target_ticks_say_equal_shares() -> None:
    document = html_page(page(target=False))
    assert 'class="tick equal"' in document and "distance to equal shares (no target)" in document


def test_changes_start_at_zero() -> None:
    report = attribute_drift(np.eye(2)[[0] * 8 + [1] * 2], np.eye(2)[[0] * 7 + [1] * 3], "hair", ("short", "long"))
    document = html_page(Page("t", "", (Section("s", (Changes((report,)),)),)))
    limit = scale_of([report])
    places = [tuple(map(float, p)) for p in re.findall(r'class="bar steered" style="left:([\d.]+)%;width:([\d.]+)%"', document)]
    assert places[1] == pytest.approx((50.0, 100 * 0.5 * 0.1 / limit), abs=1e-3)
    assert places[0] == pytest.approx((50.0 - 100 * 0.5 * 0.1 / limit, 100 * 0.5 * 0.1 / limit), abs=1e-3)


@pytest.mark.parametrize(("judges", "width"), [(1, 960), (2, 1944)])
def test_the_picture_has_every_part(judges: int, width: int) -> None:
    drawn = draw_page(page(judges=judges))
    assert drawn.dtype == np.uint8 and drawn.shape[1:] == (width, 3) and drawn.shape[0] > 1500
    assert (drawn[-20:] == 255).all() and (drawn.reshape(-1, 3) == (0xFF, 0xF6, 0xDF)).all(1).any()  # the warning's colour


def test_one_image_and_no_pictures_are_drawn_too() -> None:
    one = findings_of([Reader("j", CLASSES, read([0], [0]), read([1], [0]))], [None])
    drawn = draw_page(report_page(one, [Sheet("yes", None, 0, 1, None, 0, 1)]))
    assert drawn.shape[1] == 960 and "(no interval)" in html_page(report_page(one, []))


def test_lines_fit_their_width() -> None:
    text = "some words and one_that_is_far_too_long_for_a_line_" * 3
    lines = wrapped(text, 200, 15)
    assert all(text_width(line, 15) <= 200 for line in lines) and "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped("", 100, 15) == [""]


def test_tables_fit_the_page() -> None:
    table = Table(("a", "b"), (("short", "a long cell " * 30), ("x" * 300, "y")))
    drawn = draw_page(Page("t", "", (Section("s", (Lines(("text",)), table)),)))
    assert drawn.shape[1] == 960 and (drawn[:, 940:] == 255).all()


def test_the_drift_chart_is_as_wide_as_the_other_charts() -> None:
    f = found()
    assert drift_chart(f.judged[0].drift).shape[1:] == (960, 3)
    with pytest.raises(ValueError, match="at least one attribute"):
        drift_chart([])


def test_captions() -> None:
    s = Sheet("c", np.zeros((2, 3, 4, 4), np.uint8), 2, 9, None, 0, 8)
    assert sheet_caption(s, False) == "base: 2 of 9 images" and sheet_caption(s, True) == "steered: none of 8 images"
