"""Kernel distances against plain loops, closed forms, torchmetrics and clean-fid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from equipoise.metrics import kernel as module
from equipoise.metrics.kernel import clip_mmd, cubic, gaussian, kernel_distance, kid, squared_mmd


def draw(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def by_loops(x: np.ndarray, y: np.ndarray, k: object) -> float:
    """The definition, pair by pair."""

    def mean(pairs: list[float]) -> float:
        return sum(pairs) / len(pairs)

    within = [mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return sum(within) - 2 * mean([k(a, b) for a in x for b in y])


def test_the_cubic_kernel_is_its_definition() -> None:
    x, y = draw(7, 5, 0), draw(9, 5, 1, 0.3)
    assert squared_mmd(x, y) == pytest.approx(by_loops(x, y, lambda a, b: (a @ b / 5 + 1) ** 3), abs=1e-10)


def test_the_gaussian_kernel_is_its_definition() -> None:
    x, y = draw(7, 5, 0), draw(9, 5, 1, 0.3)
    expected = by_loops(x, y, lambda a, b: np.exp(-((a - b) ** 2).sum() / (2 * 1.5**2)))
    assert squared_mmd(x, y, gaussian(1.5)) == pytest.approx(expected, abs=1e-12)


def test_kid_agrees_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.image.kid")
    x, y = draw(60, 32, 2), draw(60, 32, 3, 0.2)
    theirs = float(image.poly_mmd(torch.from_numpy(y), torch.from_numpy(x)))
    assert kid(x, y, 0, 0).value == pytest.approx(theirs, abs=1e-6)


def test_kid_agrees_with_clean_fid() -> None:
    fid = pytest.importorskip("cleanfid.fid")
    x, y = draw(60, 32, 2), draw(60, 32, 3, 0.2)
    # one subset of all vectors: its order does not matter
    assert squared_mmd(x, y) == pytest.approx(fid.kernel_distance(x, y, num_subsets=1), abs=1e-6)


def test_recorded_values() -> None:
    """What torchmetrics 1.9.0 and clean-fid 0.1.35 give for the sets above, as far as they agree."""
    x, y = draw(60, 32, 2), draw(60, 32, 3, 0.2)
    assert squared_mmd(x, y) == pytest.approx(0.25060607032982, abs=1e-12)


def test_clip_mmd_is_that_of_unit_vectors_times_a_thousand() -> None:
    x, y = draw(40, 16, 4), draw(50, 16, 5, 0.2)
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)]
    loops = by_loops(*unit, lambda a, b: np.exp(-((a - b) ** 2).sum() / 200))
    report = clip_mmd(x * 3, y / 7, bootstrap=0, permutations=0)
    assert report.value == pytest.approx(1000 * loops, abs=1e-6) and report.scale == 1000
    # the published code averages over all pairs
    k = [np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 200).mean() for a, b in ((unit[0], unit[0]), (unit[1], unit[1]), unit)]
    assert 1000 * squared_mmd(*unit, gaussian(), unbiased=False) == pytest.approx(1000 * (k[0] + k[1] - 2 * k[2]), abs=1e-6)


def test_gaussians_have_a_closed_form() -> None:
    """E k of two isotropic unit Gaussians in D dimensions at distance m: (s^2 / (s^2 + 2))^(D/2) exp(-m^2 / (2 (s^2 + 2)))."""
    s, d, shift = 2.0, 3, 0.5
    inside = (s**2 / (s**2 + 2)) ** (d / 2)
    truth = 2 * inside * (1 - np.exp(-(d * shift**2) / (2 * (s**2 + 2))))
    values = [squared_mmd(draw(100, d, 2 * i), draw(80, d, 2 * i + 1, shift), gaussian(s)) for i in range(60)]
    assert np.mean(values) == pytest.approx(truth, abs=3 * np.std(values) / np.sqrt(60))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(23, 6, 6), draw(31, 6, 7)
    whole = squared_mmd(x, y), squared_mmd(x, y, unbiased=False)
    monkeypatch.setattr(module, "CHUNK", 5)
    assert (squared_mmd(x, y), squared_mmd(x, y, unbiased=False)) == pytest.approx(whole, abs=1e-12)


def test_where_nothing_differs_the_value_lies_below_its_floor_as_often_as_promised() -> None:
    below = 0
    for i in range(100):
        report = kid(draw(30, 4, 3 * i), draw(40, 4, 3 * i + 1), bootstrap=0, permutations=100, seed=i)
        below += report.value <= report.floor
    assert 88 <= below <= 100


def test_a_difference_is_seen_and_its_interval_holds_the_value() -> None:
    report = kid(draw(128, 8, 1), draw(256, 8, 2, 0.5), bootstrap=300, permutations=199)
    assert report.low < report.value < report.high and report.value > report.floor and report.p_value == pytest.approx(1 / 200)
    assert (report.n, report.n_reference, report.dimensions) == (128, 256, 8)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["kernel"] == "(x.y/D + 1)^3"


def test_the_interval_covers_the_truth() -> None:
    """Truth by the closed form above. 60 draws of a 95% interval: fewer than 50 would be one in a hundred thousand."""
    s, d, shift = 2.0, 3, 0.8
    truth = 2 * (s**2 / (s**2 + 2)) ** (d / 2) * (1 - np.exp(-(d * shift**2) / (2 * (s**2 + 2))))
    held = 0
    for i in range(60):
        x, y = draw(48, d, 100 + 2 * i), draw(64, d, 101 + 2 * i, shift)
        report = kernel_distance(x, y, gaussian(s), "", bootstrap=200, permutations=0, seed=i)
        held += report.low <= truth <= report.high
    assert held >= 50


def test_the_same_images_twice_are_at_no_distance() -> None:
    x = draw(50, 8, 9)
    assert squared_mmd(x, x, unbiased=False) == pytest.approx(0, abs=1e-12)
    assert kid(x, x, 200, 200).value < 0  # unbiased: pairs of an image with itself are left out on one side only


def test_large_sets_have_a_value_and_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    report = kid(draw(6, 3, 0), draw(6, 3, 1))
    assert np.isfinite(report.value) and report.low is report.high is report.floor is report.p_value is None


def test_two_images_a_side_are_enough_and_one_is_not() -> None:
    report = kid(draw(2, 3, 0), draw(2, 3, 1), bootstrap=50, permutations=50)
    assert all(np.isfinite(v) for v in (report.value, report.low, report.high, report.floor))
    with pytest.raises(ValueError, match="at least 2 images are needed; met 1 in features"):
        kid(draw(1, 3, 0), draw(5, 3, 1))


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), "3 dimensions and 2 in the reference"),
        (np.full((4, 3), np.nan), np.zeros((4, 3)), "4 of 4 vectors in features are not finite"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray, y: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        squared_mmd(x, y)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        gaussian(0.0)
    with pytest.raises(ValueError, match="2 of 3 vectors in features are zero"):
        clip_mmd(np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), np.ones((3, 2)))


def test_the_kernel_is_cubic_by_default() -> None:
    x, y = draw(5, 4, 0), draw(6, 4, 1)
    assert squared_mmd(x, y) == squared_mmd(x, y, cubic)
