"""Frechet distance against closed forms and scipy's matrix square root."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from equipoise.metrics.frechet import frechet, frechet_distance
from scipy.linalg import sqrtm


def exact_sample(n: int, mean: list[float], covariance: np.ndarray, seed: int) -> np.ndarray:
    """n vectors whose *sample* mean and covariance (divisor n - 1) are exactly the given ones."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x.T)))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x.T), np.cov(y.T)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_gaussians_with_a_closed_form() -> None:
    x = exact_sample(50, [0.0, 1.0, 2.0], np.diag([4.0, 1.0, 9.0]), 0)
    y = exact_sample(80, [1.0, 1.0, 0.0], np.diag([1.0, 1.0, 4.0]), 1)
    assert frechet_distance(x, y) == pytest.approx(1 + 4 + (2 - 1) ** 2 + 0 + (3 - 2) ** 2, rel=1e-9)


def test_one_dimension() -> None:
    x, y = exact_sample(9, [3.0], np.array([[4.0]]), 0), exact_sample(7, [1.0], np.array([[1.0]]), 1)
    assert frechet_distance(x, y) == pytest.approx(4 + 1)


def test_full_covariances_agree_with_scipy() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(200, 12)) @ generator.normal(size=(12, 12))
    y = generator.normal(size=(300, 12)) @ generator.normal(size=(12, 12)) + 1
    assert frechet_distance(x, y) == pytest.approx(by_scipy(x, y), rel=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)


def test_peers_agree() -> None:
    """Recorded from torchmetrics 1.9.0 and clean-fid 0.1.35; and asked again where they are installed."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(200, 12)) @ generator.normal(size=(12, 12))
    y = generator.normal(size=(300, 12)) @ generator.normal(size=(12, 12)) + 1
    assert frechet_distance(x, y) == pytest.approx(83.5428831626284, abs=1e-9)
    theirs = pytest.importorskip("torchmetrics.image.fid")
    moments = [torch.from_numpy(m) for z in (x, y) for m in (z.mean(0), np.cov(z.T))]
    assert frechet_distance(x, y) == pytest.approx(float(theirs._compute_fid(*moments)), abs=1e-6)
    clean = pytest.importorskip("cleanfid.fid")
    assert frechet_distance(x, y) == pytest.approx(float(clean.frechet_distance(*(m.numpy() for m in moments))), abs=1e-6)


def test_fewer_vectors_than_dimensions_need_no_ridge() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(10, 64)), generator.normal(size=(20, 64))
    assert np.isfinite(frechet_distance(x, y))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(np.ones((5, 64)), np.zeros((5, 64))) == pytest.approx(64)


def test_a_report_on_few_vectors_of_many_dimensions_is_the_same_and_quick() -> None:
    generator = np.random.default_rng(9)
    x, y = generator.normal(size=(12, 300)), generator.normal(size=(20, 300)) + 0.1
    report = frechet(x, y, weights=np.arange(1.0, 21.0), repeats=3)
    assert report.value == pytest.approx(frechet_distance(x, y, np.arange(1.0, 21.0)), rel=1e-9) and report.dimensions == 300
    padded = frechet(np.pad(x, ((0, 0), (0, 9000))), np.pad(y, ((0, 0), (0, 9000))), repeats=3)
    assert padded.floor == pytest.approx(report.floor, rel=1e-9)


def test_a_shift_adds_its_squared_length_whatever_the_precision() -> None:
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x + 1000, x) == pytest.approx(8e6, rel=1e-5)
    assert frechet_distance(x.half(), x.half().float().numpy()) == pytest.approx(0, abs=1e-9)


def test_weights_of_zero_and_one_select() -> None:
    generator = np.random.default_rng(4)
    x, y = generator.normal(size=(60, 5)), generator.normal(size=(90, 5)) * 2
    chosen = np.arange(90) % 3 == 0
    assert frechet_distance(x, y, weights=chosen * 2.5) == pytest.approx(frechet_distance(x, y[chosen]), rel=1e-9)
    assert frechet_distance(x, y, weights=np.full(90, 7.0)) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_weights_shift_the_share_of_a_group() -> None:
    """A reference of 80% A and 20% B, weighted to halves, is nearer to a sample that is half A and half B."""
    generator = np.random.default_rng(5)

    def draw(a: int, b: int) -> np.ndarray:
        return np.concatenate([generator.normal(size=(a, 4)), generator.normal(size=(b, 4)) + 3])

    sample, reference = draw(500, 500), draw(1600, 400)
    weights = np.repeat([0.5 / 1600, 0.5 / 400], [1600, 400])
    assert frechet_distance(sample, reference, weights) < 0.05 < 1 < frechet_distance(sample, reference)


@pytest.mark.parametrize(("n", "sizes"), [(200, (200, 1000)), (600, (600, 600)), (2400, (600, 600))])
def test_the_floor_is_what_equal_distributions_have(n: int, sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(6)
    reference = generator.normal(size=(1200, 16))
    values = [frechet_distance(generator.normal(size=(n, 16)), generator.normal(size=(1200, 16))) for _ in range(20)]
    report = frechet(generator.normal(size=(n, 16)), reference)
    assert report.floor_sizes == sizes and (report.n, report.n_reference, report.dimensions) == (n, 1200, 16)
    assert report.floor == pytest.approx(np.mean(values), rel=0.1)


def test_bootstrap_bounds_hold_the_value_and_shrink_with_n() -> None:
    generator = np.random.default_rng(7)
    widths = []
    for n in (100, 1600):
        report = frechet(generator.normal(size=(n, 4)) + 0.5, generator.normal(size=(n, 4)), bootstrap=200)
        assert report.low is not None and report.low < report.value < report.high
        widths.append(report.high - report.low)
    assert widths[1] < widths[0] / 2.5
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["floor_sizes"] == [800, 800]


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least two.*met 1 in features"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "met 0 in reference"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 dimensions and 4"),
        (np.zeros((5, 3)), np.full((5, 3), np.inf), "5 of 5 vectors in reference are not finite"),
        (np.zeros(5), np.zeros((5, 3)), "shape"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray, y: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        frechet(x, y)


def test_weights_that_do_not_fit_are_refused() -> None:
    for weights in (np.ones(4), -np.ones(5), [1, 0, 0, 0, 0], np.full(5, np.nan)):
        with pytest.raises(ValueError, match="weights are one per reference vector"):
            frechet_distance(np.eye(5), np.eye(5), weights)
