"""Charts say in pixels what the numbers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from equipoise.charts.core.curves import accuracy_by_log_snr, training_curves
from equipoise.charts.core.histogram import BEFORE, OVER, UNDER, histogram, panels_summary
from equipoise.charts.core.sheet import FRAME, PAD, before_after, colour, contact_sheet, side_by_side, stacked
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
    assert image.shape[0] > 36 * 60 and "class number 11 with a long name" in panels_summary(panels)


def test_summary_names_the_floor_and_the_missing_target() -> None:
    text = panels_summary([panel([30, 70], None, baseline=[10, 90])])
    assert "a 30.0% (30)" in text and "no target given" in text and "independent fair sampler" in text and "baseline" in text


def test_histogram_needs_a_panel() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        histogram([])


def test_small_images_are_enlarged_by_whole_factors_without_smoothing() -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = contact_sheet(images, columns=3, tile=40)
    first = sheet[PAD + FRAME : PAD + FRAME + 40, PAD + FRAME : PAD + FRAME + 40]
    expected = (images[0] * 255).round().byte().permute(1, 2, 0).numpy().repeat(5, 0).repeat(5, 1)
    np.testing.assert_array_equal(first, expected)


def test_large_images_are_reduced_and_keep_their_shape() -> None:
    sheet = contact_sheet(torch.ones(1, 3, 400, 200) * torch.tensor([1.0, 0, 0]).view(3, 1, 1), tile=100)
    red = np.where(mask(sheet, "#FF0000"))
    assert (np.ptp(red[0]) + 1, np.ptp(red[1]) + 1) == (100, 50)


def test_frames_have_the_colour_of_the_class() -> None:
    sheet = contact_sheet(np.zeros((4, 3, 16, 16), dtype=np.uint8), torch.tensor([0, 1, 2, -1]), ["a", "b", "c"], columns=4, tile=16)
    step = 16 + 2 * FRAME + 6
    corners = ["#" + sheet[PAD, PAD + i * step].tobytes().hex().upper() for i in range(4)]
    assert corners == [colour(0), colour(1), colour(2), "#FFFFFF"]


def test_before_and_after_stand_beside_each_other() -> None:
    black, red = np.zeros((4, 3, 8, 8), dtype=np.uint8), np.tile(np.array([200, 10, 10], dtype=np.uint8)[None, :, None, None], (4, 1, 8, 8))
    sheet = before_after(black, red, [0] * 4, [1] * 4, ["a", "b"], notes=("FD 0.4", "FD 0.0"))
    half = sheet.shape[1] // 2
    assert mask(sheet[:, :half], "#000000").sum() > 500 and mask(sheet[:, half:], "#C80A0A").sum() > 500
    assert not mask(sheet[:, :half], "#C80A0A").any()


def test_joined_pictures_are_not_scaled() -> None:
    a, b = np.zeros((10, 20, 3), dtype=np.uint8), np.full((30, 5, 3), 9, dtype=np.uint8)
    assert side_by_side(a, b, gap=2).shape == (30, 27, 3) and stacked([a, b], gap=2).shape == (42, 20, 3)
    np.testing.assert_array_equal(stacked([a, b], gap=2)[12:, :5], b)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((0, 3, 4, 4)), None, "at least one"),
        (np.zeros((2, 4, 4, 3)), None, r"\[N, 3, H, W\]"),
        (np.zeros((2, 3, 4, 4)), [0], "2 images, 1 labels"),
        (np.zeros((2, 3, 4, 4)), [0, 5], "class index 5 and 1 names"),
    ],
)
def test_sheets_refuse_what_does_not_fit(images: np.ndarray, labels: list[int] | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        contact_sheet(images, labels, ["a"])


def test_a_falling_loss_falls_in_the_picture() -> None:
    log = [{"step": s, "loss": 10 / s} for s in range(1, 200)]
    curve = mask(training_curves({"one": log, "two": [{"step": 1, "loss": 0.5}, {"step": 90, "loss": 0.2}]})[90:450], PALETTE[0])
    rows, columns = np.where(curve)
    assert rows[columns < 300].mean() < rows[columns > 700].mean() and np.ptp(columns) > 700


def test_accuracy_runs_from_noise_to_image_and_shows_windows() -> None:
    curves = {"eyeglasses": [(2.0, 0.95), (-4.0, 0.55), (-1.0, 0.7)], "hair": [(-4.0, 0.5), (2.0, 0.99)]}
    image = accuracy_by_log_snr(curves, chance={"hair": 0.5}, windows={"hair": (-1.0, 2.0)})
    rows, columns = np.where(mask(image[90:440], PALETTE[0]))
    assert rows[columns < 300].mean() > rows[columns > 700].mean()
    bar = mask(image[425:450], PALETTE[1])
    assert bar.any() and np.where(bar)[1].min() > image.shape[1] // 2 - 80


@pytest.mark.parametrize("chart", [lambda: training_curves({"a": []}), lambda: accuracy_by_log_snr({})])
def test_curves_need_points(chart: object) -> None:
    with pytest.raises(ValueError, match="at least one point"):
        chart()  # type: ignore[operator]


def test_charts_load_matplotlib_late_and_leave_pyplot_out(fresh_python: Callable[..., str]) -> None:
    fresh_python(
        "import equipoise.charts.core.curves, equipoise.charts.core.histogram, equipoise.charts.core.sheet\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
        "equipoise.charts.core.curves.training_curves({'a': [{'step': 1, 'loss': 1.0}]})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
