"""Drift of attributes that were not targeted: worked examples, scipy's bootstrap, and what chance leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from equipoise.metrics.drift import attribute_drift, drift

CLASSES = {"hair": ("short", "long"), "skin_tone": ("light", "medium", "dark")}


def hot(labels: object, k: int) -> np.ndarray:
    return np.eye(k)[np.asarray(labels)]


def test_a_worked_example() -> None:
    report = attribute_drift(hot([0, 0, 1, 2], 3), hot([0, 1, 1, 1], 3), "skin_tone", CLASSES["skin_tone"])
    assert report.before == (0.5, 0.25, 0.25) and report.after == (0.25, 0.75, 0.0)
    assert report.change == (-0.25, 0.5, -0.25) and report.drift == 0.5 and report.total_variation == 0.5 and report.moved == 0.5
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["change"] == [-0.25, 0.5, -0.25]


def test_the_paired_interval_is_scipys_for_the_differences() -> None:
    generator = np.random.default_rng(0)
    before = generator.integers(0, 2, 200)
    after = np.where(generator.random(200) < 0.1, 1 - before, before)
    report = attribute_drift(hot(before, 2), hot(after, 2), "hair", CLASSES["hair"], bootstrap=4000)
    difference = (hot(after, 2) - hot(before, 2))[:, 1]
    found = scipy.stats.bootstrap((difference,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert (report.change_low[1], report.change_high[1]) == pytest.approx(tuple(found), abs=0.01)
    assert report.moved == pytest.approx((before != after).mean())


def test_pairing_takes_out_what_differs_between_seeds() -> None:
    labels = np.random.default_rng(1).integers(0, 2, 128)
    after = labels.copy()
    after[:4] = 1 - after[:4]
    paired, apart = (attribute_drift(hot(labels, 2), hot(after, 2), "hair", CLASSES["hair"], paired=p) for p in (True, False))
    assert paired.change == apart.change and apart.moved is None
    assert paired.change_high[0] - paired.change_low[0] < (apart.change_high[0] - apart.change_low[0]) / 3
    assert paired.floor < apart.floor / 2


@pytest.mark.parametrize("paired", [True, False])
def test_where_nothing_is_different_drift_is_what_chance_leaves(paired: bool) -> None:
    generator = np.random.default_rng(2)
    found, floors, small = [], [], 0
    for i in range(80):
        x, y = (generator.choice(3, 64, p=(0.7, 0.2, 0.1)) for _ in range(2))
        report = attribute_drift(hot(x, 3), hot(y, 3), "skin_tone", CLASSES["skin_tone"], paired, bootstrap=200, seed=i)
        found.append(report.drift)
        floors.append(report.floor)
        small += report.p_value <= 0.05
    assert np.mean(floors) == pytest.approx(np.mean(found), rel=0.15) and small <= 11


def test_a_shift_is_seen() -> None:
    x = np.random.default_rng(3).choice(3, 256, p=(0.7, 0.2, 0.1))
    y = np.where((x == 0) & (np.arange(256) % 4 == 0), 1, x)
    report = attribute_drift(hot(x, 3), hot(y, 3), "skin_tone", CLASSES["skin_tone"], bootstrap=500)
    assert report.p_value < 0.01 and report.drift > 5 * report.floor and report.change_low[1] > 0 > report.change_high[0]


def test_targeted_attributes_are_left_out_and_order_is_kept() -> None:
    read = {a: hot([0, 1, 1], len(c)) for a, c in CLASSES.items()}
    assert [r.attribute for r in drift(read, read, CLASSES)] == ["hair", "skin_tone"]
    (only,) = drift(read, read, CLASSES, targeted=["hair"])
    assert only.attribute == "skin_tone" and only.drift == only.floor == 0.0 and only.p_value == 1.0


def test_unsure_shares_stand_beside() -> None:
    report = attribute_drift([[0.9, 0.1], [0.6, 0.4]], [[0.7, 0.3], [0.6, 0.4]], "hair", CLASSES["hair"])
    assert (report.unsure_before, report.unsure_after) == (0.5, 1.0)


@pytest.mark.parametrize("paired", [True, False])
def test_one_image_has_a_change_and_no_interval(paired: bool) -> None:
    report = attribute_drift(hot([0], 2), hot([1], 2), "hair", CLASSES["hair"], paired)
    assert report.change == (-1.0, 1.0) and report.change_low is None and report.p_value == 1.0


def test_whole_batches_are_resampled() -> None:
    x = np.zeros(64, int)
    y = np.repeat(np.arange(8) % 2, 8)
    one, eight = (attribute_drift(hot(x, 2), hot(y, 2), "hair", CLASSES["hair"], batch=b) for b in (1, 8))
    assert eight.change_high[1] - eight.change_low[1] > 1.8 * (one.change_high[1] - one.change_low[1])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 before and 2 after"):
        attribute_drift(hot([0, 1, 0], 2), hot([0, 1], 2), "hair", CLASSES["hair"])
    with pytest.raises(ValueError, match="'hair' has 2 classes; met tables of 3 and 3"):
        attribute_drift(hot([0], 3), hot([0], 3), "hair", CLASSES["hair"])
    with pytest.raises(ValueError, match="1 of 2 images they are not"):
        attribute_drift([[0.5, 0.5], [np.nan, 0.5]], hot([0, 1], 2), "hair", CLASSES["hair"])
