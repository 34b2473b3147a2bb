"""Agreement and reliability against torchmetrics and plain formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from equipoise.metrics.judge_calibration import BINS, cohen_kappa, judge_agreement, wilson
from scipy.stats import binomtest

CLASSES = ("light", "medium", "dark")


def readings(n: int, seed: int, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them, so that confidence means what it says."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, 3)) * sharp
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, np.array([generator.choice(3, p=row) for row in p])


def test_by_plain_formulas() -> None:
    p, y = readings(400, 0)
    report = judge_agreement(p, y, CLASSES)
    seen = p.argmax(1)
    assert report.agreement == pytest.approx((seen == y).mean()) and report.low < report.agreement < report.high
    assert report.brier == pytest.approx(np.mean([((row - np.eye(3)[c]) ** 2).sum() for row, c in zip(p, y, strict=True)]))
    assert report.log_loss == pytest.approx(-np.mean([np.log(row[c]) for row, c in zip(p, y, strict=True)]))
    assert np.sum(report.confusion) == 400 and report.confusion[0][1] == ((y == 0) & (seen == 1)).sum()
    assert report.by_class[2] == pytest.approx((seen == y)[y == 2].mean())
    error = 0.0
    for b in range(BINS):
        here = (p.max(1) >= b / BINS) & (p.max(1) < (b + 1) / BINS)
        if here.any():
            error += here.mean() * abs((seen == y)[here].mean() - p.max(1)[here].mean())
    assert report.expected_calibration_error == pytest.approx(error, abs=1e-12)
    assert sum(count for _, _, count in report.bins) == 400


def test_by_torchmetrics() -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    p, y = readings(400, 1)
    report = judge_agreement(p, y, CLASSES)
    ours, theirs = torch.from_numpy(p), torch.from_numpy(y)
    error = metrics.multiclass_calibration_error(ours, theirs, num_classes=3, n_bins=BINS, norm="l1")
    assert report.expected_calibration_error == pytest.approx(float(error), abs=1e-6)
    assert report.kappa == pytest.approx(float(metrics.multiclass_cohen_kappa(ours, theirs, num_classes=3)), abs=1e-6)
    assert np.array_equal(report.confusion, metrics.multiclass_confusion_matrix(ours, theirs, num_classes=3).numpy())


def test_kappa_of_a_worked_example() -> None:
    """Cohen's own kind of table: agreement 0.7, chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5."""
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx((0.7 - 0.5) / 0.5)
    assert cohen_kappa([[5, 0], [0, 5]]) == 1.0 and cohen_kappa([[5, 5], [5, 5]]) == pytest.approx(0.0)
    assert cohen_kappa([[9, 0], [0, 0]]) is None


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (1, 1), (61, 64), (500, 1024)])
def test_the_interval_is_scipys(hits: int, n: int) -> None:
    found = binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert wilson(hits, n) == pytest.approx((found.low, found.high), abs=1e-12)


def test_an_overconfident_judge_shows() -> None:
    p, y = readings(2000, 2, sharp=1.0)
    sharp = p**4 / (p**4).sum(1, keepdims=True)
    honest, boastful = judge_agreement(p, y, CLASSES), judge_agreement(sharp, y, CLASSES)
    assert honest.agreement == boastful.agreement
    assert honest.expected_calibration_error < 0.05 < 0.15 < boastful.expected_calibration_error
    assert boastful.confidence > boastful.agreement + 0.15 and boastful.log_loss > honest.log_loss


def test_another_reader_counts_by_its_most_probable_class() -> None:
    p, _ = readings(50, 3)
    q, _ = readings(50, 4)
    assert judge_agreement(p, torch.from_numpy(q), CLASSES) == judge_agreement(p, q.argmax(1), CLASSES)


def test_one_image_and_a_class_that_is_never_there() -> None:
    report = judge_agreement([[0.9, 0.1, 0.0]], [0], CLASSES)
    assert report.agreement == 1.0 and report.low < 0.3 and report.kappa is None
    assert report.by_class == (1.0, None, None) and report.bins == ((0.9, 1.0, 1),)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["by_class"] == [1.0, None, None]


def test_full_confidence_falls_into_the_last_bin() -> None:
    report = judge_agreement(np.eye(3)[[0, 1, 2, 2]], [0, 1, 2, 0], CLASSES)
    assert report.bins == ((1.0, 0.75, 4),) and report.expected_calibration_error == pytest.approx(0.25)
    assert np.isfinite(report.log_loss)


@pytest.mark.parametrize(
    ("labels", "says"),
    [([0, 1], "index below 3 for each of 3 images"), ([0, 1, 3], "index below 3"), (np.eye(2)[[0, 1, 1]], r"met \[3, 3\] and \[3, 2\]")],
)
def test_labels_that_do_not_fit_are_refused(labels: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        judge_agreement(np.eye(3), labels, CLASSES)
    with pytest.raises(ValueError, match="3 class names"):
        judge_agreement(np.eye(3), [0, 1, 2], ("a", "b"))
