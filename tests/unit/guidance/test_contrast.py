"""Directions from prompts: the mean difference by noise level, its size in norms of h, and how alike single latents are."""

from __future__ import annotations

import math

import pytest
import torch
from equipoise.methods.guidance.contrast import ContrastSums, detail_of, plan
from equipoise.methods.guidance.moves import move_vector
from equipoise.models.sites import pool
from torch import Tensor

LEVEL = torch.tensor([-5.0, 0.0, 5.0])
C = 4


def features(n: int = 12, classes: int = 3, spread: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """[K, N, T, C, 4, 4] of one scene per latent, what each class adds at each level, and noise between the latents in what it adds; and
    what the classes add, [K, T, C, 4, 4]."""
    generator = torch.Generator().manual_seed(seed)
    scene = 5 * torch.randn(n, len(LEVEL), C, 4, 4, generator=generator)
    added = torch.randn(classes, len(LEVEL), C, 4, 4, generator=generator)
    noise = spread * torch.randn(classes, n, len(LEVEL), C, 4, 4, generator=generator)
    return scene[None] + added[:, None] + noise, added


def sums_of(*parts: Tensor) -> ContrastSums:
    sums = ContrastSums()
    for part in parts:
        sums.add(part, LEVEL)
    return sums


def test_a_direction_is_what_the_class_adds_less_the_mean_over_classes() -> None:
    h, added = features()
    sums = sums_of(h[:, :5], h[:, 5:])
    expected = (added - added.mean(0)).flatten(2).transpose(0, 1)
    assert sums.latents == 12
    torch.testing.assert_close(sums.directions, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(sums.norm, h.flatten(3).norm(dim=-1).mean((0, 1)), rtol=1e-4, atol=0)
    assert (sums.agreement > 0.999).all()


def test_a_move_goes_the_way_of_the_prompts_at_the_size_that_is_given() -> None:
    h, added = features()
    sums = sums_of(h)
    detail = torch.tensor([1.0, 2.0, 3.0])
    with torch.inference_mode():
        move = sums.move("output.1")
    assert torch.equal(move.sizes, torch.ones(3, 3))
    assert (move.source, move.site, move.relative, move.vectors.shape) == ("prompt-contrast", "output.1", True, (3, 3, 1, C, 4, 4))
    assert torch.equal(move.knots, LEVEL) and not move.vectors.is_inference() and not move.sizes.is_inference()
    ways = torch.stack([torch.cdist(v, v).max() for v in move.vectors.flatten(2)])
    torch.testing.assert_close(ways, torch.ones(3))
    as_prompts = (sums.shares(detail) * sums.norm * detail)[:, None, None, None]
    for t, level in enumerate(LEVEL.tolist()):
        step = move_vector(move, torch.arange(3), None, level, torch.Size((3, C, 4, 4))) * as_prompts[t]
        torch.testing.assert_close(step, (added - added.mean(0))[:, t], atol=1e-4, rtol=0)
        toward = move_vector(move, torch.tensor([2]), torch.tensor([[1.0, 0.0, 0.0]]), level, torch.Size((1, C, 4, 4)))
        torch.testing.assert_close(toward[0] * as_prompts[t], (added[2] - added[0])[t], atol=1e-4, rtol=0)


def test_agreement_falls_where_latents_differ_in_what_a_class_does() -> None:
    alike, mixed, none = (sums_of(features(200, 2, spread)[0]).agreement for spread in (0.0, 1.0, 30.0))
    assert (alike > mixed + 0.1).all() and (mixed > none + 0.3).all() and (none < 0.25).all()


def test_the_norm_of_h_counts_what_pooling_leaves_out() -> None:
    even = torch.randn(1, C, 4, 4).repeat_interleave(4, -1).repeat_interleave(2, -2)
    rough = even + 3 * torch.randn(1, C, 8, 16)
    rough = rough - torch.nn.functional.interpolate(pool(rough) - pool(even), size=(8, 16), mode="nearest")
    found = detail_of(torch.cat([pool(even), pool(rough)]), torch.cat([even, rough]))
    assert float(found[0]) == pytest.approx(1.0) and float(found[1]) == pytest.approx(float(rough.norm() / even.norm()), rel=1e-4)


def test_prompts_that_change_nothing_and_features_that_are_no_numbers_are_told() -> None:
    h, _ = features(4, 2)
    same = h[:1].repeat(2, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="make no difference at 'middle'"):
        sums_of(same).move("middle")
    h[0, 0, 0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        sums_of(h)


PLANS = [(64, 16, 2, 4), (96, 8, 2, 4), (128, 16, 6, 4), (7, 4, 3, 1), (2, 8, 2, 5)]


@pytest.mark.parametrize(("images", "batch", "classes", "rows"), PLANS)
def test_classes_get_equal_parts_and_rows_take_turns(images: int, batch: int, classes: int, rows: int) -> None:
    made = plan(images, batch, classes, rows)
    assert images <= len(made) * batch < images + classes * batch
    counts = [sum(c == k for c, _ in made) for k in range(classes)]
    assert len(set(counts)) == 1 and len({r for _, r in made}) == min(rows, len(made))
    longer = plan(classes * rows * batch, batch, classes, rows)
    assert sorted(longer) == [(c, r) for c in range(classes) for r in range(rows)], "in time every class meets every row"
