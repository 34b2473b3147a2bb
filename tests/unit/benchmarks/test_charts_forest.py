"""Intervals by name, in panels."""

from __future__ import annotations

import numpy as np
import pytest
from equipoise.benchmarks.data.forest import LEFT, RIGHT, ROW, TOP, WIDTH, forest
from equipoise.charts.core.style import PALETTE


def has_colour(picture: np.ndarray, colour: str) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(picture.astype(int) - wanted).max(-1) < 12).nonzero()


def test_values_stand_in_their_rows_and_panels() -> None:
    panels = {"left": {"one": (0.1, 0.05, 0.2), "two": (1.0, None, None)}, "right": {"one": (0.5, 0.4, 0.6)}}
    picture = forest(panels, "Title", "value", marked=("two",), lines={"left": 0.3})
    assert picture.dtype == np.uint8 and picture.shape[1] == WIDTH
    middle = (LEFT + WIDTH - RIGHT) / 2
    y, x = has_colour(picture, PALETTE[3])
    assert len(y) > 30, "the marked name has a colour of its own"
    assert TOP + ROW < y.mean() < TOP + 2 * ROW and LEFT + 0.8 * (middle - LEFT) < x.mean() < middle
    y, x = has_colour(picture, PALETTE[0])
    assert y.max() < TOP + ROW and (x > middle).any(), "what a panel lacks leaves its row empty"


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        forest({"panel": {}}, "Title", "value")


def test_values_of_0_can_be_drawn() -> None:
    assert forest({"panel": {"one": (0.0, 0.0, 0.0)}}, "Title", "value").shape[2] == 3
