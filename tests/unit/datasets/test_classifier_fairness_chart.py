"""Charts of classifiers say in pixels and words what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest
from equipoise.benchmarks.data.training_sets import training_sets
from equipoise.charts.core.style import PALETTE
from equipoise.charts.datasets.classifier_fairness import fairness_chart, fairness_text, widest_class
from equipoise.metrics.classifier_fairness import ClassifierFairness, measure_classifier


def measured(right: dict[str, float], n: int = 40, classes: tuple[str, ...] = ("yes", "no")) -> ClassifierFairness:
    """Groups in which so many of the images are read right, the others as the next class."""
    truth, read, group = [], [], []
    for g, share in enumerate(right.values()):
        for i in range(n):
            truth.append(i % len(classes))
            read.append(truth[-1] if i < share * n else (truth[-1] + 1) % len(classes))
            group.append(g)
    return measure_classifier(truth, read, group, classes, list(right), bootstrap=100)


def places(image: np.ndarray, hex_colour: str, left: int, right: int) -> list[int]:
    """Columns of the markers of a colour, row by row (a marker is wider and higher than an interval's line)."""
    rgb = np.array([int(hex_colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    there = (image[:, left:right] == rgb).all(-1)
    found, rows = [], []
    for y in range(len(there)):
        if there[y].any():
            rows.append(y)
        elif rows:
            columns = there[rows[0] : rows[-1] + 1].sum(0)
            found.append(left + int(np.median(np.flatnonzero(columns > 5))))
            rows = []
    return found


def test_markers_stand_where_the_accuracies_are() -> None:
    image = fairness_chart(measured({"a": 0.5, "b": 1.0, "c": 0.75}), "glasses", "hair", "model")
    a, b, c = places(image, PALETTE[0], 244, 560)
    assert image.dtype == np.uint8 and image.shape[1] == 960
    assert b - a == pytest.approx(150, abs=3) and c - a == pytest.approx(75, abs=3)


def test_the_height_follows_the_groups_and_most_are_shown() -> None:
    few, many = (fairness_chart(measured({f"g{i}": 0.9 for i in range(n)}, n=8), "a", "b") for n in (2, 40))
    assert many.shape[0] - few.shape[0] == 22 * 40


def test_the_class_that_differs_most_is_shown() -> None:
    found = measured({"a": 1.0, "b": 1.0}, classes=("x", "y", "z"))
    assert widest_class(found) == "x"  # all alike: the first
    truth = [0, 1, 2] * 20
    read = [0, 1, 2] * 10 + [0, 1, 1] * 10
    uneven = measure_classifier(truth, read, [0] * 30 + [1] * 30, ("x", "y", "z"), ("a", "b"), bootstrap=20)
    assert widest_class(uneven) == "z"


def test_words_name_every_group_and_warn() -> None:
    text = fairness_text(measured({"a": 0.5, "b": 1.0}, n=12), "glasses", "hair")
    assert "a: 12 images, accuracy 50.0%" in text and "worst group a" in text
    assert "equalised odds difference 0." in text and "by chance 0." in text and "note: a has only 6 of yes" in text


def test_one_group_is_drawn_without_differences() -> None:
    found = measured({"a": 0.5})
    assert "not to be had" in fairness_text(found, "x", "y") and fairness_chart(found, "x", "y").shape[1] == 960


def test_training_sets_stand_at_their_means_with_their_intervals() -> None:
    panels = {"one": {"base": ([0.4, 0.3, 0.5], [0.8, 0.7, 0.9]), "new": ([0.1, 0.05, 0.15], [0.9, 0.88, 0.92])}}
    image = training_sets(panels, "title", "note")
    base, new = places(image, PALETTE[3], 200, 540)
    scale = 290 / (0.5 * 1.05)
    assert base - new == pytest.approx(0.3 * scale, abs=3)
    lone = training_sets({"one": {"base": ([0.4, None, None], [0.8, None, None])}}, "title")
    assert lone.shape[0] < image.shape[0]
    with pytest.raises(ValueError, match="at least one"):
        training_sets({"one": {}}, "title")
