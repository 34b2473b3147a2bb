"""The strip of a sweep: columns, rows, labels and bars; and which features an atlas shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise.charts.bias_features.steer_sweep import BAR, steer_strip
from equipoise.charts.core.style import PALETTE
from equipoise.methods.bias_features.atlas import chosen_features, class_of, class_scores, feature_notes, note_legend

STRENGTHS = (-1.0, 0.0, 1.0)


def flat(values: list[float], size: int = 8) -> torch.Tensor:
    """Grey images [P, 2, 3, size, size], one value per strength."""
    return torch.tensor(values).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, size, size)


def test_a_column_per_strength_and_a_row_per_image() -> None:
    strip = steer_strip(flat([0.2, 0.4, 0.6]), STRENGTHS, "eyeglasses: yes")
    assert strip.dtype == np.uint8 and strip.shape[2] == 3 and strip.flags.writeable
    middle = strip[strip.shape[0] // 2]
    columns = [np.flatnonzero((middle == round(255 * v)).all(1)) for v in (0.2, 0.4, 0.6)]
    assert all(len(c) == 192 for c in columns), "whole factors of 8 pixels, as high as allowed"
    assert columns[0][-1] < columns[1][0] and columns[1][-1] < columns[2][0]
    assert steer_strip(flat([0.2, 0.4, 0.6]), STRENGTHS, most=1).shape[0] < strip.shape[0] - 192


def test_bars_are_as_high_as_the_shares() -> None:
    strip = steer_strip(flat([0.5] * 3), STRENGTHS, shares=(0.0, 0.5, 1.0))
    blue = (strip == np.array([int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)])).all(2)
    heights = blue.sum(0)
    assert set(heights.tolist()) == {0, BAR // 2, BAR}
    assert strip.shape[0] > steer_strip(flat([0.5] * 3), STRENGTHS).shape[0] + BAR


def test_many_strengths_and_large_images_fit() -> None:
    wide = steer_strip(torch.rand(21, 1, 3, 8, 8), [i / 10 for i in range(21)])
    assert wide.shape[1] >= 21 * 64
    assert steer_strip(torch.rand(11, 1, 3, 100, 50), [float(i) for i in range(11)]).shape[1] <= 960


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one column per strength; met \[3, 2, 3, 8, 8\] and 2 strengths"):
        steer_strip(flat([0.1, 0.2, 0.3]), (0.0, 1.0))
    with pytest.raises(ValueError, match="as many shares; met 1"):
        steer_strip(flat([0.1, 0.2, 0.3]), STRENGTHS, shares=(0.5,))


@pytest.fixture(scope="module")
def found(load_module: Callable[[Path, str], Any], repository: Path) -> Any:
    return random_bias(random_sae(6, "middle", "tiny", 32), {"hair": ("short", "medium", "long")}, 7).attributes["hair"]


def test_an_atlas_takes_the_best_of_every_class_in_turn(found: Any) -> None:
    """Feature i speaks for class i mod 3."""
    assert chosen_features(found, "", 5) == [0, 1, 2, 3, 4]
    assert chosen_features(found, "medium", 5) == [1, 4] and chosen_features(found, "short", 2) == [0, 3]
    with pytest.raises(ValueError, match="no class 'curly'"):
        chosen_features(found, "curly", 1)
    assert [class_of(found, i) for i in (0, 1, 2, 3, 4)] == ["short", "medium", "long", "short", "medium"]
    found.scores[1] = -1.0
    with pytest.raises(ValueError, match="no feature speaks for medium"):
        chosen_features(found, "medium", 1)


def test_what_is_said_of_a_feature(found: Any) -> None:
    found.causal[2, 5], found.side_effect[5], found.stability[2, 5] = 0.25, float("nan"), 0.9
    assert feature_notes(found, 5) == ["for long", "stable 90%", "alone +25 pt"]
    words = [line.split(":")[0] for line in note_legend(found)]
    assert words == ["stable", "others", "alone"], "other features have side effects"
    found.side_effect[:] = float("nan")
    assert len(note_legend(found)) == 2
    assert list(class_scores(found, 5)) == ["short", "medium", "long"] and class_scores(found, 5)["long"] == float(found.scores[2, 5])
