"""Fairness of a classifier: against plain formulas, scipy and fairlearn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from equipoise.metrics.classifier_fairness import (
    MEAN,
    WORST,
    confusion,
    demographic_parity_difference,
    difference_interval,
    equalised_odds_difference,
    fair_counts,
    measure_classifier,
    rate,
    resampled_counts,
)
from scipy import stats

YES_NO, AB = ("yes", "no"), ("a", "b")


def drawn(n: int, classes: int, groups: int, seed: int, right: float = 0.7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, decisions that are right more often in later groups, and groups."""
    rng = np.random.default_rng(seed)
    truth, group = rng.integers(0, classes, n), rng.integers(0, groups, n)
    hit = rng.random(n) < right + 0.05 * group
    return truth, np.where(hit, truth, rng.integers(0, classes, n)), group


def by_hand(truth: np.ndarray, read: np.ndarray, group: np.ndarray, positive: int) -> dict[str, float]:
    """The definitions, image by image."""
    selected, true, false = [], [], []
    for g in sorted(set(group.tolist())):
        here = [(t == positive, r == positive) for t, r, x in zip(truth, read, group, strict=True) if x == g]
        selected.append(sum(r for _, r in here) / len(here))
        for rates, wanted in ((true, True), (false, False)):
            of = [r for t, r in here if t == wanted]
            if of:
                rates.append(sum(of) / len(of))
    ranges = [max(r) - min(r) for r in (true, false)]
    return {"dp": max(selected) - min(selected), "worst": max(ranges), "mean": sum(ranges) / 2}


@pytest.mark.parametrize("groups", [2, 3, 5])
@pytest.mark.parametrize("classes", [2, 3])
def test_differences_are_the_definitions(classes: int, groups: int) -> None:
    truth, read, group = drawn(400, classes, groups, seed=classes + groups)
    counts = confusion(truth, read, group, classes, groups)
    wanted = [by_hand(truth, read, group, c) for c in range(classes)]
    assert float(demographic_parity_difference(counts)) == pytest.approx(max(w["dp"] for w in wanted), abs=1e-12)
    for agg in (WORST, MEAN):
        key = "worst" if agg == WORST else "mean"
        assert float(equalised_odds_difference(counts, agg)) == pytest.approx(max(w[key] for w in wanted), abs=1e-12)
    made = measure_classifier(truth, read, group, [f"c{i}" for i in range(classes)], [f"g{i}" for i in range(groups)], bootstrap=50)
    assert made.equalised_odds_difference.value == pytest.approx(max(w["worst"] for w in wanted), abs=1e-12)
    assert made.mean_odds_difference.value == pytest.approx(max(w["mean"] for w in wanted), abs=1e-12)
    assert made.by_class["c1"]["demographic_parity_difference"] == pytest.approx(wanted[1]["dp"], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_fairlearn_agrees(seed: int) -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    groups = 2 + seed % 3
    truth, read, group = drawn(60 + 150 * seed, 2, groups, seed)
    counts = confusion(truth, read, group, 2, groups)
    for positive in (0, 1):  # for two classes it does not matter which one is positive
        given = {"y_true": truth == positive, "y_pred": read == positive, "sensitive_features": group}
        dp, frame = metrics.demographic_parity_difference(**given), metrics.MetricFrame
        assert float(demographic_parity_difference(counts)) == pytest.approx(dp, abs=1e-12)
        for agg in (WORST, MEAN):
            wanted = metrics.equalized_odds_difference(**given, agg=agg)
            assert float(equalised_odds_difference(counts, agg)) == pytest.approx(wanted, abs=1e-12)
        made = measure_classifier(truth, read, group, YES_NO, [str(g) for g in range(groups)], bootstrap=0)
        for name, metric in (("true_positive", metrics.true_positive_rate), ("false_positive", metrics.false_positive_rate)):
            by_group = frame(metrics=metric, **given).by_group
            for g, figures in enumerate(made.groups):
                assert figures.by_class[YES_NO[positive]][name].value == pytest.approx(by_group[g], abs=1e-12)


def test_one_against_the_rest_is_fairlearns_number_for_every_class() -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    truth, read, group = drawn(500, 4, 3, 0)
    counts = confusion(truth, read, group, 4, 3)
    wanted = [metrics.equalized_odds_difference(y_true=truth == c, y_pred=read == c, sensitive_features=group) for c in range(4)]
    assert float(equalised_odds_difference(counts)) == pytest.approx(max(wanted), abs=1e-12)


def test_known_values() -> None:
    """Recorded from fairlearn 0.15.0, so that they hold where it is not installed."""
    truth = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    read = [1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    counts = confusion(truth, read, [0] * 8 + [1] * 8, 2, 2)
    assert float(demographic_parity_difference(counts)) == 0.375
    assert float(equalised_odds_difference(counts)) == 0.5
    assert float(equalised_odds_difference(counts, MEAN)) == 0.375


def test_a_rate_without_images_takes_no_part() -> None:
    """fairlearn calls the true positive rate of a group without positives 0, and the difference then 1."""
    counts = confusion([0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], 2, 2)
    assert float(equalised_odds_difference(counts)) == 0.0
    made = measure_classifier([0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], YES_NO, AB, bootstrap=20)
    assert made.groups[1].by_class["yes"]["true_positive"].value is None
    assert any("b has no images of yes, and takes no part" in note for note in made.notes)


def test_the_bootstrap_is_scipys_given_the_same_generator() -> None:
    truth, read, group = drawn(120, 2, 3, 1)
    flat = (group * 2 + truth) * 2 + read
    counts = resampled_counts(flat, (3, 2, 2), 300, seed=7)
    ours = equalised_odds_difference(counts)

    def statistic(rows: np.ndarray) -> float:
        return float(equalised_odds_difference(confusion(truth[rows], read[rows], group[rows], 2, 3)))

    theirs = stats.bootstrap(
        (np.arange(120),), statistic, n_resamples=300, vectorized=False, method="percentile", rng=np.random.default_rng(7)
    )
    assert np.abs(np.sort(ours) - np.sort(theirs.bootstrap_distribution)).max() < 1e-12
    low, high = np.quantile(ours, (0.025, 0.975))
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-9)


def test_chunks_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.metrics import classifier_fairness

    codes = np.repeat(np.arange(8), 5)
    whole = resampled_counts(codes, (2, 2, 2), 50, seed=3)
    monkeypatch.setattr(classifier_fairness, "CHUNK", 97)
    assert (resampled_counts(codes, (2, 2, 2), 50, seed=3) == whole).all()
    assert (whole.sum((1, 2, 3)) == 40).all()


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 10), (480, 500)])
def test_rates_have_scipys_wilson_interval(hits: int, n: int) -> None:
    made, wanted = rate(hits, n), stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (made.value, made.low, made.high) == pytest.approx((hits / n, wanted.low, wanted.high), abs=1e-12)


def test_a_fair_classifier_is_said_to_be_fair_and_an_unfair_one_is_not() -> None:
    """Over 200 sets: the interval holds the true difference about as often as it says, also where that is 0."""
    rng = np.random.default_rng(0)
    held = {0.0: 0, 0.2: 0}
    for gap in held:
        for i in range(200):
            truth, group = np.repeat([0, 1], 120), np.tile([0, 1], 120)
            right = rng.random(240) < np.where((group == 1) & (truth == 0), 0.9 - gap, 0.9)
            made = measure_classifier(truth, np.where(right, truth, 1 - truth), group, YES_NO, AB, 200, seed=i).equalised_odds_difference
            held[gap] += made.low <= gap <= made.high
            assert made.low <= made.value <= made.high
    assert held[0.0] >= 184 and held[0.2] >= 180, held


def test_chance_is_what_a_fair_classifier_of_that_size_would_show() -> None:
    truth, read, group = drawn(200, 2, 2, 5)
    made = measure_classifier(truth, read, group, YES_NO, AB, bootstrap=4000)
    fair = fair_counts(confusion(truth, read, group, 2, 2), 4000, np.random.default_rng(9))
    assert made.equalised_odds_difference.chance == pytest.approx(float(equalised_odds_difference(fair).mean()), rel=0.05)
    # as many images of every group and class as there are
    assert (fair.sum(-1) == confusion(truth, read, group, 2, 2).sum(-1)).all()
    # The mean absolute difference of two equal rates, by the normal law; equalised odds take the larger of two such.
    n, p = 1000, 0.8
    large = np.array([[[round(n * p), round(n * (1 - p))], [0, 1]]] * 2)
    spread = equalised_odds_difference(fair_counts(large, 4000, np.random.default_rng(1))).mean()
    assert spread == pytest.approx(2 / math.sqrt(math.pi) * math.sqrt(p * (1 - p) / n), rel=0.05)


def test_the_worst_groups_interval_holds_the_lowest_accuracy() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for i in range(200):
        group = np.tile(np.arange(4), 50)
        truth = np.zeros(200, dtype=np.int64)
        right = rng.random(200) < np.array([0.8, 0.8, 0.82, 0.95])[group]
        made = measure_classifier(truth, np.where(right, 0, 1), group, YES_NO, list("abcd"), bootstrap=0, seed=i).worst_group_accuracy
        held += made.low <= 0.8 <= made.high
    assert held >= 188, held


def test_interval_is_pinned_to_nothing_where_there_is_nothing() -> None:
    assert difference_interval(0.1, np.empty(0), np.empty(0)) == (None, None)
    assert difference_interval(0.5, np.full(100, 0.5), np.full(100, 0.1)) == (0.5, 0.5)
    low, _ = difference_interval(0.1, np.linspace(0.05, 0.3, 100), np.linspace(0.0, 0.2, 100))
    assert low == 0.0


def test_one_image_and_one_group_and_absent_groups() -> None:
    one = measure_classifier([0], [1], [0], YES_NO, AB)
    assert (one.accuracy.value, one.equalised_odds_difference.value) == (0.0, None)
    assert [g.name for g in one.groups] == ["a"] and "all images are of one group, a" in one.notes[0]
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["equalised_odds_difference"]["low"] is None
    assert one.to_dict()["groups"][0]["accuracy"]["n"] == 1


def test_tensors_are_read_too() -> None:
    made = measure_classifier(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0, 1]), YES_NO, AB, bootstrap=10)
    assert made.accuracy.value == 1.0 and made.accuracy.low < 1.0


@pytest.mark.parametrize(
    ("truth", "read", "groups", "classes", "names", "says"),
    [
        ([], [], [], YES_NO, AB, "one image at least"),
        ([0, 1], [0], [0, 0], YES_NO, AB, r"met \[2, 2, 1\]"),
        ([0, 2], [0, 1], [0, 0], YES_NO, AB, "true class indices"),
        ([0, 1], [0, 1], [0, 2], YES_NO, AB, "group indices"),
        ([0.5, 1], [0, 1], [0, 1], YES_NO, AB, "whole numbers"),
        ([0], [0], [0], ("yes",), AB, "two or more different classes"),
        ([0], [0], [0], ("yes", "yes"), AB, "two or more different classes"),
        ([0], [0], [0], YES_NO, (), "at least one group"),
    ],
)
def test_bad_input_is_refused(truth: list, read: list, groups: list, classes: tuple, names: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        measure_classifier(truth, read, groups, classes, names)
