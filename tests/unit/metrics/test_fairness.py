"""Fairness metrics against hand-computed values, exact enumeration and simulation."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from equipoise.metrics.fairness import (
    assigned_hit_rate,
    bootstrap_shares,
    deviation_ratio,
    fairness_discrepancy,
    fd_interval,
    joint_classes,
    joint_probabilities,
    measure,
    noise_floor,
    share_entropy,
)


def one_hot(labels: list[int], k: int) -> np.ndarray:
    return np.eye(k)[labels]


def exact_floor(target: list[float], n: int) -> float:
    """Mean FD over every possible count vector, weighted by its multinomial probability."""
    total = 0.0
    for counts in itertools.product(range(n + 1), repeat=len(target)):
        if sum(counts) == n:
            ways = math.factorial(n) / math.prod(math.factorial(c) for c in counts)
            chance = ways * math.prod(p**c for p, c in zip(target, counts, strict=True))
            total += chance * math.dist([c / n for c in counts], target)
    return total


def test_counts_shares_and_discrepancies_by_hand() -> None:
    p = [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
    report = measure(p, ["yes", "no"], [0.5, 0.5])
    assert report.counts == (3, 1) and report.shares == (0.75, 0.25)
    assert report.soft_shares == pytest.approx((0.6, 0.4))
    assert report.fd == pytest.approx(math.sqrt(2) * 0.25)
    assert report.fd_soft == pytest.approx(math.sqrt(2) * 0.1)
    assert report.unsure == 0.5  # 0.6 and 0.7; 0.8 is sure
    assert report.deviation == pytest.approx(0.5)
    assert report.entropy == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert report.n == 4 and report.target_given and report.resampled == "images"


def test_three_classes_and_a_skewed_target() -> None:
    report = measure(one_hot([0] * 6 + [1] * 3 + [2], 3), "abc", [0.5, 0.3, 0.2])
    assert report.fd == pytest.approx(math.sqrt(0.1**2 + 0.0 + 0.1**2))
    assert report.deviation == pytest.approx(0.1 / 0.8)


def test_a_tensor_of_half_precision_and_an_array_give_the_same() -> None:
    p = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]], dtype=torch.float16)
    assert measure(p, ["a", "b"]) == measure(p.double().numpy(), ["a", "b"])


def test_without_a_target_the_uniform_one_stands_in_and_says_so() -> None:
    report = measure(one_hot([0, 0, 0, 1], 2), ["a", "b"])
    assert not report.target_given and report.target == (0.5, 0.5) and report.fd == pytest.approx(math.sqrt(2) / 4)


def test_extremes_of_fd_and_deviation() -> None:
    assert fairness_discrepancy([1, 0], [0, 1]) == pytest.approx(math.sqrt(2))
    assert deviation_ratio([1, 0, 0], [1 / 3] * 3) == pytest.approx(1.0)
    assert deviation_ratio([0, 1], [0.8, 0.2]) == pytest.approx(1.0)
    assert deviation_ratio([1.0], [1.0]) == 0.0
    assert share_entropy([0.25] * 4) == pytest.approx(math.log(4)) and share_entropy([1, 0]) == 0.0


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize("target", [[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
def test_noise_floor_of_two_classes_is_exact(target: list[float], n: int) -> None:
    assert noise_floor(target, n) == pytest.approx(exact_floor(target, n), abs=1e-12)


@pytest.mark.parametrize("target", [[1 / 3] * 3, [0.7, 0.2, 0.1], [0.25] * 4])
def test_noise_floor_of_more_classes_is_within_its_stated_error(target: list[float]) -> None:
    assert noise_floor(target, 6) == pytest.approx(exact_floor(target, 6), rel=0.015)


@pytest.mark.parametrize("n", [256, 1024, 10_000])
def test_noise_floor_of_a_fair_coin_is_the_known_constant(n: int) -> None:
    assert noise_floor([0.5, 0.5], n) == pytest.approx(0.5642 / math.sqrt(n), rel=2e-3)


def test_joint_table_is_row_major() -> None:
    a, b = torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    joint = joint_probabilities({"eyeglasses": a, "skin_tone": b})
    assert joint.shape == (2, 6) and joint.dtype == np.float64
    np.testing.assert_allclose(joint[1], [0.03, 0.24, 0.03, 0.07, 0.56, 0.07], atol=1e-6)
    names = joint_classes({"eyeglasses": ("yes", "no"), "skin_tone": ("light", "medium", "dark")})
    assert names[0] == "yes/light" and names[4] == "no/medium" and len(set(names)) == 6


def test_balanced_marginals_do_not_hide_empty_cells() -> None:
    both = one_hot([0, 0, 1, 1], 2)
    report = measure(joint_probabilities({"a": both, "b": both}), joint_classes({"a": "xy", "b": "uv"}), [0.25] * 4)
    assert measure(both, "xy", [0.5, 0.5]).fd == 0.0
    assert report.counts == (2, 0, 0, 2) and report.fd == pytest.approx(0.5)


def test_batches_of_equal_counts_leave_no_interval() -> None:
    report = measure(one_hot([0, 1] * 40, 2), ["a", "b"], [0.5, 0.5], batch=8)
    assert (report.fd, report.fd_low, report.fd_high) == (0.0, 0.0, 0.0) and report.resampled == "batches"
    single = measure(one_hot([0, 1] * 40, 2), ["a", "b"], [0.5, 0.5])
    assert single.fd_high is not None and single.fd_high > 0.1 and single.fd_low == 0.0


def test_resampled_batches_vary_as_batch_means_do() -> None:
    generator = np.random.default_rng(3)
    rates = generator.beta(2, 2, size=40)
    labels = (generator.random((40, 10)) < rates[:, None]).astype(int).reshape(-1)
    draws, what = bootstrap_shares(one_hot(labels, 2), 10, 4000, 0)
    assert what == "batches"
    assert draws[:, 1].std() == pytest.approx(labels.reshape(40, 10).mean(1).std() / math.sqrt(40), rel=0.05)
    alone, _ = bootstrap_shares(one_hot(labels, 2), 1, 4000, 0)
    assert alone[:, 1].std() == pytest.approx(labels.std() / math.sqrt(400), rel=0.05)
    assert alone[:, 1].std() < 0.7 * draws[:, 1].std()


def test_a_short_last_batch_counts_by_its_size() -> None:
    draws, _ = bootstrap_shares(one_hot([0] * 4 + [1], 2), 4, 500, 0)
    assert set(np.round(draws[:, 1], 9)) == {0.0, 0.2, 1.0}


def test_few_images_or_one_batch() -> None:
    one = measure([[0.9, 0.1]], ["a", "b"])
    assert one.resampled == "nothing" and one.fd_low is None and one.shares_high is None
    assert measure(one_hot([0, 1, 1], 2), ["a", "b"], batch=16).resampled == "images"


@pytest.mark.parametrize(("target", "shift"), [([0.5, 0.5], 0.0), ([0.25] * 4, 0.0), ([0.25] * 4, 0.03), ([0.7, 0.2, 0.1], 0.1)])
def test_the_interval_covers_the_truth(target: list[float], shift: float) -> None:
    """300 samples of 256 images each; the interval is to hold the true FD in 91% of them at least (see fd_interval)."""
    generator = np.random.default_rng(11)
    truth = np.array(target) + shift / math.sqrt(2) * np.array([-1.0, 1.0] + [0.0] * (len(target) - 2))
    held = 0
    for _ in range(300):
        shares = generator.multinomial(256, truth) / 256
        low, high = fd_interval(shares, generator.multinomial(256, shares, size=300) / 256, target)
        held += low <= shift + 1e-12 and shift <= high
    assert held >= 0.91 * 300


def test_the_interval_is_no_wider_than_it_has_to_be() -> None:
    generator = np.random.default_rng(0)
    low, high = fd_interval([0.9, 0.1], generator.multinomial(400, [0.9, 0.1], size=2000) / 400, [0.5, 0.5])
    half = 1.96 * math.sqrt(2) * math.sqrt(0.9 * 0.1 / 400)
    assert low == pytest.approx(0.4 * math.sqrt(2) - half, abs=0.008) and high == pytest.approx(0.4 * math.sqrt(2) + half, abs=0.008)


def test_json_holds_every_field_and_repeats() -> None:
    p = np.random.default_rng(0).dirichlet([1, 1, 1], size=50)
    report = measure(p, "abc", [0.2, 0.3, 0.5], batch=10, seed=4)
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert report == measure(p, "abc", [0.2, 0.3, 0.5], batch=10, seed=4)
    assert read["classes"] == ["a", "b", "c"] and read["fd"] == report.fd and sum(read["counts"]) == 50
    assert read["fd_low"] <= read["fd"] <= read["fd_high"] and read["noise_floor"] > 0


def test_hit_rate() -> None:
    assert assigned_hit_rate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="3 images, 2 classes"):
        assigned_hit_rate(np.full((3, 2), 0.5), [0, 1])


@pytest.mark.parametrize(
    ("probabilities", "classes", "target", "says"),
    [
        ([[2.0, -1.0]], "ab", None, "not logits"),
        ([[0.5, 0.6]], "ab", None, "sum to 1"),
        ([[float("nan"), 0.5]], "ab", None, "1 of 1 images"),
        (np.empty((0, 2)), "ab", None, "at least one each"),
        ([0.5, 0.5], "ab", None, "shape"),
        ([[0.5, 0.5]], "aa", None, "different class names"),
        ([[0.5, 0.5]], "abc", None, "expected 2"),
        ([[0.5, 0.5]], "ab", [1.0], "expected 2, met 1"),
        ([[0.5, 0.5]], "ab", [0.5, 0.6], "sum to 1"),
        ([[0.5, 0.5]], "ab", [1.5, -0.5], "not negative"),
    ],
)
def test_what_does_not_fit_is_refused(probabilities: object, classes: str, target: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        measure(probabilities, classes, target)  # type: ignore[arg-type]


def test_joint_tables_need_the_same_images() -> None:
    with pytest.raises(ValueError, match="same images"):
        joint_probabilities({"a": np.full((3, 2), 0.5), "b": np.full((4, 2), 0.5)})
