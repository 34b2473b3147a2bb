"""The chart and the sheets of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from equipoise.charts.core.style import PALETTE
from equipoise.charts.labels.labels import class_sheet, label_chart, same_size, surest_and_least_sure

TABLE = torch.tensor([[0.95, 0.05], [0.55, 0.45], [0.1, 0.9], [0.85, 0.15], [0.7, 0.3]])


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def area(image: np.ndarray, colour: str) -> int:
    return int((image == rgb(colour)).all(-1).sum())


def test_bars_are_as_long_as_their_shares() -> None:
    chart = label_chart({"hair": TABLE}, {"hair": ("short", "long")})
    assert chart.dtype == np.uint8 and chart.shape[1:] == (960, 3)
    sure, unsure = area(chart[:-52], PALETTE[0]), area(chart[:-52], PALETTE[4])
    assert sure / unsure == pytest.approx(3 / 2, rel=0.1)  # 3 images of 5 have at least 0.8; markers cover a little
    taller = label_chart({"hair": TABLE, "b": TABLE}, {"hair": ("short", "long"), "b": ("x", "$y$")}, "a set")
    assert taller.shape[0] > chart.shape[0]
    with pytest.raises(ValueError, match="at least one attribute and one image"):
        label_chart({"hair": TABLE[:0]}, {"hair": ("short", "long")})


def test_the_surest_and_the_least_sure() -> None:
    assert surest_and_least_sure(TABLE, 0, 4) == ([0, 3], [1, 4])
    assert surest_and_least_sure(TABLE, 0, 6) == ([0, 3, 4], [1])
    assert surest_and_least_sure(TABLE, 1, 24) == ([2], [])


def test_a_sheet_shows_those_and_frames_the_sure_ones() -> None:
    asked: list[list[int]] = []

    def images(indices: list[int]) -> torch.Tensor:
        asked.append(indices)
        return torch.rand(len(indices), 3, 24, 24)

    sheet = class_sheet("hair", "short", TABLE, 0, 4, images)
    assert asked == [[0, 3], [1, 4]] and sheet.dtype == np.uint8
    assert area(sheet, PALETTE[0]) == 2 * (104**2 - 96**2)
    empty = class_sheet("hair", "none", torch.cat([TABLE, torch.zeros(5, 1)], dim=1), 2, 4, images)
    assert len(asked) == 2 and empty.shape[0] > 96


def test_sheets_of_one_size() -> None:
    batch = same_size([np.zeros((4, 6, 3), np.uint8), np.zeros((5, 3, 3), np.uint8)])
    assert batch.shape == (2, 5, 6, 3) and batch[0, 4].min() == 255 and batch[1, :, 3:].min() == 255 and batch.sum(dtype=int) > 0
    with pytest.raises(ValueError, match="at least one sheet"):
        same_size([])
