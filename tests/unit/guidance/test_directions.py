"""Directions read off recorded features, against closed forms."""

from __future__ import annotations

import pytest
import torch
from equipoise.methods.guidance.directions import KINDS, direction_move, linear_discriminant, mean_difference
from equipoise.methods.guidance.moves import move_vector


def _two_classes(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    x = torch.randn(n, d, generator=generator) * torch.linspace(0.2, 2.0, d)
    return x + labels[:, None] * torch.ones(d), labels


def test_mean_difference_points_from_one_mean_to_the_other() -> None:
    x, y = _two_classes(4000, 8)
    v = mean_difference(x, y, 2)
    expected = torch.nn.functional.normalize(x[y == 1].mean(0) - x[y == 0].mean(0), dim=0)
    assert torch.allclose(v[1], expected, atol=1e-5)
    assert torch.allclose(v[0], -expected, atol=1e-5)


def test_discriminant_weighs_by_the_inverse_covariance() -> None:
    x, y = _two_classes(20000, 6)
    v = linear_discriminant(x, y, 2, shrinkage=1e-4)[1]
    expected = torch.nn.functional.normalize(1 / torch.linspace(0.2, 2.0, 6) ** 2, dim=0)
    assert torch.dot(v, expected) > 0.995


def test_more_features_than_images_give_the_same_discriminant() -> None:
    x, y = _two_classes(40, 60)
    wide = linear_discriminant(x, y, 2)
    means = torch.stack([x[y == k].mean(0) for k in range(2)])
    r = x - means[y]
    covariance = 0.9 * r.T @ r / 40 + 0.1 * r.pow(2).mean() * torch.eye(60)
    direct = torch.nn.functional.normalize(torch.linalg.solve(covariance, (means - means.mean(0)).T).T, dim=1)
    assert torch.allclose(wide, direct, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_leads_from_every_class_to_every_other(kind: str) -> None:
    features = torch.randn(120, 3, 4, 4)
    level = torch.tensor([-2.0, 0.0, 2.0]).repeat(40)
    labels = (torch.arange(120) // 3) % 3
    move = direction_move(kind, features, level, labels, 3, size=0.5)
    assert move.knots.tolist() == [-2.0, 0.0, 2.0] and move.source == kind
    assert move.relative and move.vectors.shape == (3, 3, 1, 3, 4, 4)

    def way(start: int, end: int) -> torch.Tensor:
        read = torch.nn.functional.one_hot(torch.tensor([start]), 3).float()
        return move_vector(move, torch.tensor([end]), read, 0.0, torch.Size((1, 3, 4, 4)))[0]

    lengths = torch.tensor([[float(way(k, c).norm()) for k in range(3)] for c in range(3)])
    assert lengths.max() == pytest.approx(0.5, abs=1e-4) and lengths.diagonal().max() == 0  # nothing to do where it is already
    assert torch.allclose(way(0, 2), -way(2, 0), atol=1e-6)
    assert torch.allclose(way(0, 1) + way(1, 2), way(0, 2), atol=1e-6)
    assert (move.sizes == 0.5).all()


def test_an_empty_class_and_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="class 2 has no image"):
        mean_difference(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), 3)
    with pytest.raises(ValueError, match="mean-difference"):
        direction_move("median", torch.randn(4, 1, 4, 4), torch.zeros(4), torch.tensor([0, 1, 0, 1]), 2)
