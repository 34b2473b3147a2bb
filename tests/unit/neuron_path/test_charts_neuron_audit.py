"""Charts of the neuron audit: what was measured is drawn, and what cannot be drawn is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from equipoise.charts.neuron_path.leakage import leakage_chart
from equipoise.charts.neuron_path.neuron_gallery import NeuronRow, gallery_chart
from equipoise.charts.neuron_path.path_effects import EffectRow, path_effects_chart
from equipoise.charts.neuron_path.prune_curve import PrunedPoint, prune_chart

CHANGE = np.linspace(-0.5, 0.1, 40).astype(np.float32)
NAMES = ("eyeglasses", "hair", "skin_tone")
TABLE = np.array([[0.6, 0.0, 0.01], [0.2, 0.4, 0.0], [0.0, 0.0, 0.5]], dtype=np.float32)
WARNING = "WARNING: labels of eyeglasses lean on what decides hair"


def effects(rows: list[EffectRow]) -> np.ndarray:
    return path_effects_chart("what paths do", [("path removed", rows), ("path doubled", rows)], "40 images")


def test_a_box_per_method_and_a_longer_picture_for_more() -> None:
    one, row = EffectRow("clean-layer", CHANGE, (-0.1, -0.2, 0.0)), EffectRow("random", CHANGE * 0.01, (0.0, float("nan"), float("nan")))
    few, more = effects([one]), effects([one, row])
    assert few.dtype == np.uint8 and few.shape[1:] == (960, 3) and more.shape[0] > few.shape[0]
    moved = effects([replace(one, change=CHANGE - 0.2), row])
    assert moved.shape == more.shape and not np.array_equal(moved, more)
    for rows in ([], [replace(one, change=CHANGE[:0])]):
        with pytest.raises(ValueError, match="at least one"):
            effects(rows)


def test_a_leak_is_framed_and_told() -> None:
    plain = leakage_chart(NAMES, TABLE, TABLE, TABLE * 0.1, [], [], "a")
    told = leakage_chart(NAMES, TABLE, TABLE, TABLE * 0.1, [(1, 0)], [WARNING], "a")
    assert plain.shape == told.shape and plain.shape[1] == 960
    red = np.abs(told.astype(int) - (0xB2, 0x18, 0x2B)).sum(2) < 30
    assert red.sum() > 1000 and not (np.abs(plain.astype(int) - (0xB2, 0x18, 0x2B)).sum(2) < 30).any()
    many = leakage_chart(NAMES, TABLE, TABLE, TABLE * 0.1, [(1, 0)], [WARNING] * 12, "a")
    assert many.shape[0] > told.shape[0]
    with pytest.raises(ValueError, match="two or more"):
        leakage_chart(NAMES[:1], TABLE[:1, :1], TABLE[:1, :1], TABLE[:1, :1], [], [])


def test_a_pruning_curve_marks_what_it_recommends() -> None:
    bounds = (0.7, 0.6, 0.8)
    points = [PrunedPoint(k, s, bounds, bounds, (0.4, 0.3, 0.5), (0.3, 0.2, 0.4)) for k in (1, 5) for s in (0.5, 1.0)]
    marked, none = prune_chart("pruning", points, (0.9, 0.8), 5), prune_chart("pruning", points, (0.9, 0.8), None)
    assert marked.shape == none.shape and marked.shape[1] == 960 and not np.array_equal(marked, none)
    assert not np.array_equal(marked, prune_chart("pruning", points, (0.9, 0.8), 5, known=False))
    with pytest.raises(ValueError, match="at least one point"):
        prune_chart("pruning", [], (1.0, 1.0), None)


def test_a_gallery_has_a_row_per_neuron_and_heat_where_it_is_asked_for() -> None:
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    heat = np.zeros((4, 8, 8), dtype=np.float32)
    heat[:, 2:4, 2:4] = 1
    row = NeuronRow("3:17", images, images, heat, heat * 0, [4, 3, 2, 1], [-1, 0, 0, 0], {"yes": 2.0, "no": -0.1})
    hot, bare = gallery_chart([row]), gallery_chart([row], overlay=False)
    assert hot.shape == bare.shape and hot.shape[1] == 960 and gallery_chart([row, row]).shape[0] > hot.shape[0]
    difference = np.abs(hot.astype(int) - bare).sum(2)
    assert difference.max() > 150 and np.array_equal(gallery_chart([replace(row, by_class={})], overlay=False).shape, bare.shape)
    for rows in ([], [replace(row, heat_top=heat[:2])]):
        with pytest.raises(ValueError, match="gallery"):
            gallery_chart(rows)
