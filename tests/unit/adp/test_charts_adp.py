"""Charts of a predictor: curves by noise level, and what calibration tried."""

from __future__ import annotations

import math

import numpy as np
import pytest
from equipoise.charts.adp.figures import FOOT, GROUP, HEAD, LEFT, ROW, TrialRow, adp_curves, trials_chart
from equipoise.charts.core.style import PALETTE

ACCURACY = {"hair": [[-5.0, 0.5], [0.0, 0.9], [4.0, 0.98]], "skin $tone_1$": [[-5.0, 0.4], [4.0, 0.9]]}
LOSS = {"hair": [[-5.0, 0.69], [0.0, 0.3]], "skin $tone_1$": [[-5.0, 1.1], [4.0, 0.2]]}
CLASSES = {"hair": 2, "skin $tone_1$": 3}


def mask(image: np.ndarray, hex_colour: str) -> np.ndarray:
    rgb = [int(hex_colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (image == np.array(rgb, dtype=np.uint8)).all(-1)


def test_accuracy_stands_above_loss_with_a_line_for_guessing() -> None:
    image = adp_curves(ACCURACY, LOSS, CLASSES)
    assert image.shape == (1048, 960, 3) and image.dtype == np.uint8
    for half in (image[:520], image[528:]):
        for colour in PALETTE[:2]:
            drawn = mask(half, colour)
            assert drawn.sum() > 200
            # The dotted line reaches across the axes at one height, also where the curve is not.
            assert any(np.ptp(np.where(row)[0]) > 780 for row in drawn if row.sum() > 50)
    alone = adp_curves(ACCURACY, {}, CLASSES)
    assert alone.shape == (520, 960, 3) and np.array_equal(alone, image[:520])
    assert adp_curves({}, LOSS, CLASSES).shape == (520, 960, 3)
    windowed = adp_curves(ACCURACY, LOSS, CLASSES, {"hair": (-4.0, 1.0)})
    assert mask(windowed[:520], PALETTE[0]).sum() > mask(image[:520], PALETTE[0]).sum() + 500
    with pytest.raises(ValueError, match="at least one point"):
        adp_curves({}, {}, {})


def test_trials_are_bars_by_group_with_the_used_one_marked() -> None:
    rows = [
        TrialRow("sum", "0 / 0.4 / 0", (1.0, 0.5), 0.1, 0.02),
        TrialRow("sum", "0 / 0.8 / 0", (1.0, 1.0), 0.2, 0.02, chosen=True, best=True),
        TrialRow("mean", "0 / 0.4 / 0", (0.5, 0.5), 0.1, math.nan, chosen=True),
    ]
    image = trials_chart(rows, "hair: sizes", 0.01)
    assert image.shape == (HEAD + 2 * GROUP + 3 * ROW + FOOT, 960, 3)
    width = 960 - LEFT - 40
    body = image[HEAD : HEAD + 2 * GROUP + 3 * ROW]

    def longest(colour: str) -> int:
        drawn = mask(body, colour)
        return max(int(np.ptp(np.where(r)[0])) + 1 if r.any() else 0 for r in drawn)

    assert longest(PALETTE[2]) == pytest.approx(width, abs=6), "the one that is used, all of its images"
    assert longest(PALETTE[4]) == pytest.approx(0.75 * width, abs=6) and longest(PALETTE[0]) == pytest.approx(0.5 * width, abs=6)
    assert mask(body[:, : LEFT + 40], PALETTE[3]).sum() > 20, "unsure shares and the line of plain images"
    with pytest.raises(ValueError, match="at least one trial"):
        trials_chart([], "nothing")
