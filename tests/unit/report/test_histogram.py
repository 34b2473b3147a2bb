"""Test that the histogram shows in pixels what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest
from equipoise.charts.core.histogram import BEFORE, OVER, UNDER, histogram, histogram_text
from equipoise.charts.core.style import PALETTE
from equipoise.metrics.fairness import measure
from equipoise.metrics.panels import Panel, make_panels


def mask(image: np.ndarray, hex_colour: str) -> np.ndarray:
    rgb = [int(hex_colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (image == np.array(rgb, dtype=np.uint8)).all(-1)


def panel(counts: list[int], target: list[float] | None, baseline: list[int] | None = None, bootstrap: int = 0) -> Panel:
    classes = tuple("abcdefgh"[: len(counts)])

    def report(given: list[int]) -> object:
        rows = np.repeat(np.eye(len(given)), given, axis=0)
        return measure(rows, classes, target, bootstrap=bootstrap)

    return Panel(("attribute",), (classes,), report(counts), report(baseline) if baseline else None)


def bar_lengths(image: np.ndarray, hex_colour: str) -> list[int]:
    """Extent of each bar of a colour above the legend, top to bottom (a target's line may cross it)."""
    lengths, now = [], 0
    for row in mask(image[:-70, :786], hex_colour):  # right of it stand the numbers
        columns = np.where(row)[0]
        if len(columns) > 20:
            now = max(now, int(np.ptp(columns)) + 1)
        elif now:
            lengths.append(now)
            now = 0
    return lengths


def test_bars_are_as_long_as_the_shares_from_zero() -> None:
    image = histogram([panel([20, 60, 20], [0.9, 0.05, 0.05])], soft=False)
    a, b, c = bar_lengths(image, PALETTE[0])
    assert a > 100 and a == pytest.approx(c, abs=2) and b == pytest.approx(3 * a, abs=8)
    assert image.dtype == np.uint8 and image.shape[1:] == (960, 3)


def test_the_baseline_has_bars_of_its_own() -> None:
    image = histogram([panel([50, 50], [0.5, 0.5], baseline=[20, 80])], soft=False)
    short, long = bar_lengths(image, BEFORE)
    assert short > 100
    assert long == pytest.approx(4 * short, abs=8)
    assert bar_lengths(histogram([panel([50, 50], [0.5, 0.5])]), BEFORE) == []


def test_the_target_stands_where_it_is_and_is_told_from_uniform() -> None:
    image = histogram([panel([75, 25], [0.25, 0.75])], soft=False)
    blue, line = np.where(mask(image, PALETTE[0])), np.where(mask(image[:-80], PALETTE[3]))
    start, full = blue[1][blue[0] < 150].min(), bar_lengths(image, PALETTE[0])[0]  # full is 75%
    assert line[1].min() == pytest.approx(start + full / 3, abs=5) and line[1].max() == pytest.approx(start + full, abs=5)
    assert not mask(histogram([panel([75, 25], None)]), PALETTE[3]).any() and mask(histogram([panel([75, 25], None)]), PALETTE[5]).any()


def test_the_interval_is_drawn() -> None:
    def dark(image: np.ndarray) -> int:
        return int(mask(image[92:180, 100:780], "#1A1A1A").sum())

    without, with_bars = (histogram([panel([30, 70], [0.5, 0.5], bootstrap=b)], soft=False) for b in (0, 500))
    assert dark(with_bars) > dark(without) + 200


def test_a_joint_table_colours_cells_by_what_is_too_much_and_too_little() -> None:
    eye = np.eye(2)
    classes = {"eyeglasses": ("yes", "no"), "hair": ("short", "long")}
    same = make_panels({"eyeglasses": eye[[0, 1] * 8], "hair": eye[[0, 1] * 8]}, classes, (tuple(classes), [0.25] * 4))
    image = histogram(same[:1])
    over, under = mask(image[:-80], OVER), mask(image[:-80], UNDER)
    assert over.sum() > 10_000 and under.sum() > 10_000
    rows, columns = np.where(over)
    upper_left = (rows < np.median(rows)) & (columns < np.median(columns))
    assert upper_left.sum() > 0.3 * len(rows), "yes/short and no/long are the cells with too many"


def test_many_cells_long_names_and_mathematical_signs_are_drawn() -> None:
    long = {"a $very$ long_name of an attribute": tuple(f"class number {i} with a long name" for i in range(12)), "b": ("x", "y", "z")}
    read = {a: np.full((5, len(c)), 1 / len(c)) for a, c in long.items()}
    panels = make_panels(read, long, (tuple(long), [1 / 36] * 36), baseline=read)
    image = histogram(panels, title="title")
    assert image.shape[0] > 36 * 60 and "class number 11 with a long name" in histogram_text(panels)


def test_summary_names_the_floor_and_the_missing_target() -> None:
    text = histogram_text([panel([30, 70], None, baseline=[10, 90])])
    assert "a 30.0% (30)" in text and "no target given" in text and "independent fair sampler" in text and "baseline" in text


def test_histogram_needs_a_panel() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        histogram([])
