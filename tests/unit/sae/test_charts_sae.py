"""Charts of an autoencoder's training, and of trials by the size of the edit."""

from __future__ import annotations

import numpy as np
import pytest
from equipoise.charts.core.curves import share_by_size, share_by_strength
from equipoise.charts.sae.report import sae_curves

FVU = [[-4.0, 0.2, 16.0], [0.0, 0.1, 15.5], [4.0, 0.05, 16.0]]
LOSS = [[10, 0.9], [20, 0.3], [30, 0.2]]


def test_both_curves_are_drawn_one_below_the_other() -> None:
    both = sae_curves(FVU, LOSS)
    assert both.shape == (1048, 960, 3) and both.dtype == np.uint8
    assert sae_curves(FVU, []).shape == sae_curves([], LOSS).shape == (520, 960, 3)
    assert (sae_curves([[*row[:1], 2 * row[1], row[2]] for row in FVU], LOSS) != both).any()
    with pytest.raises(ValueError, match="at least one point"):
        sae_curves([], [])


def test_shares_by_size_have_a_line_per_class() -> None:
    one = share_by_size({"yes": [(0.5, 0.7), (1.0, 0.98)]}, "eyeglasses", 0.97)
    two = share_by_size({"yes": [(0.5, 0.7), (1.0, 0.98)], "no": [(0.5, 0.9)]}, "eyeglasses", 0.97)
    assert one.shape == two.shape == (520, 960, 3) and (one != two).any()
    with pytest.raises(ValueError, match="at least one point"):
        share_by_size({}, "eyeglasses", 0.97)


def test_shares_by_strength_go_below_zero() -> None:
    up = share_by_strength({"yes": [(-1.0, 0.0), (0.0, 0.2), (1.0, 0.98)]}, "eyeglasses")
    down = share_by_strength({"yes": [(-1.0, 0.98), (0.0, 0.2), (1.0, 0.0)]}, "eyeglasses")
    assert up.shape == (520, 960, 3) and (up != down).any()
    with pytest.raises(ValueError, match="at least one point"):
        share_by_strength({}, "eyeglasses")
