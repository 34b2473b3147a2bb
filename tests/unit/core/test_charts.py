"""Test that contact sheets and curves show in pixels what the numbers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from equipoise.charts.core.curves import accuracy_by_log_snr, training_curves
from equipoise.charts.core.sheet import FRAME, PAD, colour, contact_sheet, side_by_side, stacked
from equipoise.charts.core.style import PALETTE


def mask(image: np.ndarray, hex_colour: str) -> np.ndarray:
    rgb = [int(hex_colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (image == np.array(rgb, dtype=np.uint8)).all(-1)


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
    classes = ["a", "b"]
    sheet = side_by_side(contact_sheet(black, [0] * 4, classes, note="FD 0.4"), contact_sheet(red, [1] * 4, classes, note="FD 0.0"))
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
        (np.zeros((2, 3, 4, 4)), [0], "2 images and 1 labels"),
        (np.zeros((2, 3, 4, 4)), [0, 5], "class index 5 has none"),
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
