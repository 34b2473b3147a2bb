"""Same-seed similarity and prompt agreement against torch's cosine and torchmetrics' formula."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from equipoise.metrics.paired import cosines, paired_similarity
from equipoise.metrics.prompt_agreement import agreement_change, prompt_agreement


def draw(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cosines_are_torchs() -> None:
    x, y = draw(20, 8, 0), draw(20, 8, 1)
    expected = torch.nn.functional.cosine_similarity(x, y).numpy()
    np.testing.assert_allclose(cosines(x, y), expected, atol=1e-12)
    report = paired_similarity(x, y)
    assert report.cosine == pytest.approx(expected.mean(), abs=1e-12) and report.mapped == pytest.approx((expected.mean() + 1) / 2)
    assert report.lowest == pytest.approx(expected.min()) and report.low < report.cosine < report.high
    assert report.mapped_low == pytest.approx((report.low + 1) / 2)


def test_the_papers_figure_and_the_raw_cosine() -> None:
    """DiffLens prints (cos + 1) / 2: its 0.9479 is a cosine of 0.8958."""
    angle = np.arccos(0.8958)
    report = paired_similarity(np.array([[1.0, 0.0]]), np.array([[np.cos(angle), np.sin(angle)]]))
    assert report.cosine == pytest.approx(0.8958) and report.mapped == pytest.approx(0.9479)
    assert report.low is report.high is report.unrelated is None


def test_unrelated_is_the_mean_over_pairs_of_different_seeds() -> None:
    x, y = draw(6, 4, 2), draw(6, 4, 3)
    table = torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
    expected = float(table[~torch.eye(6, dtype=torch.bool)].mean())
    assert paired_similarity(x, y).unrelated == pytest.approx(expected, abs=1e-12)


def test_equal_images_are_alike_whatever_their_length() -> None:
    x = draw(5, 4, 4)
    report = paired_similarity(x, 3 * x)
    assert report.cosine == pytest.approx(1.0) and report.mapped_high == pytest.approx(1.0)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["n"] == 5


def test_batches_widen_the_interval_where_they_are_alike_within() -> None:
    angle = np.repeat(np.random.default_rng(0).uniform(0, 1, 8), 8)
    x, y = np.tile([1.0, 0.0], (64, 1)), np.stack([np.cos(angle), np.sin(angle)], 1)
    one, eight = paired_similarity(x, y), paired_similarity(x, y, batch=8)
    assert eight.high - eight.low > 1.8 * (one.high - one.low)


def test_pairs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds in the same order: met 3 images with 4 features before and 2 with 4"):
        paired_similarity(draw(3, 4, 0), draw(2, 4, 0))
    with pytest.raises(ValueError, match="1 of 2 vectors in the images after are zero"):
        cosines(np.ones((2, 3)), np.array([[1.0, 1, 1], [0, 0, 0]]))


def test_prompt_agreement_is_the_mean_cosine() -> None:
    x, t = draw(30, 16, 5), draw(1, 16, 6)
    expected = torch.nn.functional.cosine_similarity(x, t)
    report = prompt_agreement(x, t)
    assert report.cosine == pytest.approx(float(expected.mean()), abs=1e-12) and report.low < report.cosine < report.high
    assert report.score == pytest.approx(float((100 * expected).clamp(min=0).mean()), abs=1e-10)
    assert report.other is report.retrieved is None


def test_every_image_is_compared_with_its_own_prompt() -> None:
    texts = np.eye(3)
    report = prompt_agreement(texts[[0, 1, 2, 2]] + 0.1, texts, [0, 1, 2, 0])
    table = (texts[[0, 1, 2, 2]] + 0.1) / np.linalg.norm(texts[0] + 0.1)
    own = table[range(4), [0, 1, 2, 0]]
    assert report.cosine == pytest.approx(own.mean()) and report.retrieved == 0.75
    assert report.other == pytest.approx((table.sum() - own.sum()) / 8)


def test_the_change_is_paired() -> None:
    """What differs between seeds cancels: the interval of the change is far narrower than those of the two sets."""
    t, before = draw(1, 16, 7), draw(40, 16, 8)
    after = before + 0.1 * t
    mean, low, high = agreement_change(before, after, t)
    expected = torch.nn.functional.cosine_similarity(after, t) - torch.nn.functional.cosine_similarity(before, t)
    assert mean == pytest.approx(float(expected.mean()), abs=1e-12) and 0 < low < mean < high
    alone = prompt_agreement(before, t)
    assert high - low < (alone.high - alone.low) / 3


def test_prompts_that_do_not_fit_are_refused() -> None:
    x = draw(4, 8, 0)
    with pytest.raises(ValueError, match="met 8 and 6 dimensions"):
        prompt_agreement(x, draw(1, 6, 0))
    with pytest.raises(ValueError, match="with 2 prompts, say for each of the 4 images"):
        prompt_agreement(x, draw(2, 8, 0))
    with pytest.raises(ValueError, match="index below 2 for each of 4 images"):
        prompt_agreement(x, draw(2, 8, 0), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="4 before and 3 after"):
        agreement_change(x, x[:3], draw(1, 8, 0))
