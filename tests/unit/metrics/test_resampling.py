"""Resampling against scipy.stats.bootstrap with the same indices, and its rules for batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from equipoise.metrics.fairness import measure
from equipoise.metrics.resampling import as_features, mean_interval, multiplicities, percentiles, resampled_means, unit_rows


class Told(np.random.Generator):
    """A generator whose ``integers`` gives what it was told."""

    def __init__(self, indices: np.ndarray) -> None:
        super().__init__(np.random.PCG64(0))
        self._indices = indices

    def integers(self, *_: Any, **__: Any) -> np.ndarray:
        return self._indices


def indices_of(counts: np.ndarray) -> np.ndarray:
    """Multiplicities [draws, n] as the indices that were drawn, [draws, n]."""
    return np.stack([np.repeat(np.arange(counts.shape[1]), row.astype(int)) for row in counts])


def by_scipy(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    told = Told(indices_of(counts))
    found = scipy.stats.bootstrap((values,), np.mean, n_resamples=len(counts), method="percentile", rng=told, vectorized=True)
    return tuple(found.confidence_interval)


def test_the_interval_of_a_mean_is_scipys_with_the_same_indices() -> None:
    values = np.random.default_rng(0).normal(size=40)
    counts, what = multiplicities(40, 1, 500, 7)
    mean, low, high = mean_interval(values, draws=500, seed=7)
    assert what == "images" and mean == pytest.approx(values.mean(), abs=1e-12)
    assert (low, high) == pytest.approx(by_scipy(values, counts), abs=1e-12)


def test_batches_are_scipys_bootstrap_of_batch_means() -> None:
    values = np.random.default_rng(1).normal(size=48)
    counts, what = multiplicities(48, 8, 300, 3)
    assert what == "batches" and (counts.reshape(300, 6, 8) == counts.reshape(300, 6, 8)[:, :, :1]).all()
    expected = by_scipy(values.reshape(6, 8).mean(1), counts[:, ::8])
    assert percentiles(resampled_means(values, counts)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_shares_of_a_fairness_report_have_scipys_interval(batch: int) -> None:
    """Its draws are multinomial counts; the same counts as indices go to scipy."""
    p = np.eye(3)[np.random.default_rng(2).integers(0, 3, 24)]
    report = measure(p, ("a", "b", "c"), batch=batch, bootstrap=400, seed=5)
    generator = np.random.default_rng(5)
    if batch == 1:
        classes = generator.multinomial(24, p.mean(0), size=400)
        drawn = np.stack([np.repeat(np.arange(3), row) for row in classes])
        # draws of classes are draws of images, as images of one class are alike
        first = np.array([int(p[:, c].argmax()) for c in range(3)])
        drawn, values = first[drawn], p
    else:
        drawn = indices_of(generator.multinomial(6, np.full(6, 1 / 6), size=400))
        values = p.reshape(6, 4, 3).mean(1)
    for c in range(3):
        found = scipy.stats.bootstrap(
            (values[:, c],), np.mean, n_resamples=400, method="percentile", rng=Told(drawn), vectorized=True
        ).confidence_interval
        assert report.shares_low[c] == pytest.approx(found.low, abs=1e-9)
        assert report.shares_high[c] == pytest.approx(found.high, abs=1e-9)


def test_a_short_last_batch_counts_as_one() -> None:
    counts, _ = multiplicities(10, 4, 50, 0)
    assert counts.shape == (50, 10) and (counts[:, 8] == counts[:, 9]).all()
    assert (counts[:, [0, 4, 8]].sum(1) == 3).all()


def test_too_few_to_resample() -> None:
    assert multiplicities(1, 1, 100, 0)[1] == "nothing" and mean_interval([2.0]) == (2.0, None, None)
    assert multiplicities(4, 4, 10, 0)[1] == "images"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="batch=0"):
        multiplicities(4, 0, 10, 0)
    with pytest.raises(ValueError, match="2 images are needed; met 1 in reference"):
        as_features(np.zeros((1, 3)), "reference", 2)
    with pytest.raises(ValueError, match="1 of 2 vectors in base are not finite"):
        as_features(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), "base")
    with pytest.raises(ValueError, match=r"shape \[images, dimensions\]; met shape \[3\]"):
        as_features(np.zeros(3), "base")
    with pytest.raises(ValueError, match="1 of 2 vectors in base are zero"):
        unit_rows(np.eye(2) * [1.0, 0.0], "base")
