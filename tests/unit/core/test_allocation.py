"""Quotas follow the target at every batch size; the assignment asks for the least change."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from equipoise.methods.core import assignment as allocation
from equipoise.methods.core.assignment import least_change_assignment, quotas, seed_offset, seeded_assignment

TARGETS = [(0.5, 0.5), (0.2, 0.8), (1 / 3, 1 / 3, 1 / 3), (0.7, 0.2, 0.1), (0.25,) * 4, (0.4, 0.1, 0.2, 0.3), (1.0, 0.0), (0.0, 0.05, 0.95)]


@pytest.mark.parametrize("shares", TARGETS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 33])
def test_expected_counts_over_all_offsets_are_the_target(shares: tuple[float, ...], n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = 3000
    total = np.zeros(len(shares))
    for step in range(grid):
        monkeypatch.setattr(allocation, "seed_offset", lambda seed, step=step: (step + 0.5) / grid)
        counts = np.array(quotas(shares, n, 0))
        assert counts.sum() == n
        assert (np.abs(counts - n * np.array(shares)) < 1).all(), "a count may be rounded up or down, not further"
        total += counts
    assert total / grid == pytest.approx(n * np.array(shares), abs=2 * len(shares) / grid)


@pytest.mark.parametrize("shares", TARGETS)
def test_seeds_in_a_row_are_even(shares: tuple[float, ...]) -> None:
    """256 images made one by one, seeds counted up from anywhere: closer to the target than any independent draw would be."""
    for start in (0, 1, 123456789, 2**63 - 5, 2**64 - 100):
        counts = np.sum([quotas(shares, 1, seed % 2**64) for seed in range(start, start + 256)], axis=0)
        assert np.abs(counts - 256 * np.array(shares)).max() < 3, counts


def test_who_gets_the_remainder_changes_with_the_seed_and_not_with_the_call() -> None:
    seen = {tuple(quotas((0.5, 0.5), 1, seed)) for seed in range(8)}
    assert seen == {(1, 0), (0, 1)}
    assert quotas((0.3, 0.3, 0.4), 5, 77) == quotas((0.3, 0.3, 0.4), 5, 77)


def test_offsets_are_in_0_to_1_for_every_seed_of_the_host() -> None:
    offsets = [seed_offset(s) for s in (0, 1, 2**63, 2**64 - 1, 12345)]
    assert all(0 <= o < 1 for o in offsets)
    assert len(set(offsets)) == 5


def test_a_class_without_share_gets_no_image() -> None:
    for seed in range(200):
        assert quotas((0.0, 0.37, 0.0, 0.63, 0.0), 3, seed)[::2] == [0, 0, 0]


def test_many_cells_and_large_batches_add_up() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares = rng.dirichlet(np.full(rng.integers(2, 40), 0.3))
        n = int(rng.integers(1, 2000))
        counts = quotas(tuple(shares), n, int(rng.integers(2**62)))
        assert sum(counts) == n
        assert (np.abs(np.array(counts) - n * shares) < 1 + 1e-6).all()


@pytest.mark.parametrize("counts", [[2, 3], [1, 0, 4], [2, 2, 1], [0, 5], [1, 1, 1, 2]])
def test_the_assignment_is_the_best_of_all(counts: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(counts))
    for _ in range(10):
        log_p = torch.randn(5, len(counts), generator=generator).log_softmax(-1)
        assigned = least_change_assignment(log_p, counts)
        assert Counter(assigned.tolist()) == Counter({c: n for c, n in enumerate(counts) if n})
        places = [c for c, n in enumerate(counts) for _ in range(n)]
        best = max(sum(float(log_p[i, c]) for i, c in enumerate(order)) for order in set(itertools.permutations(places)))
        assert float(log_p[torch.arange(5), assigned].sum()) == pytest.approx(best, abs=1e-5)


def test_images_that_are_what_they_shall_be_are_left_so() -> None:
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    assert least_change_assignment(p.log(), [2, 2]).tolist() == [0, 0, 1, 1]
    assert least_change_assignment(p.log(), [3, 1]).tolist() == [0, 0, 1, 0]


def test_certain_readings_and_wrong_quotas() -> None:
    certain = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf], [-torch.inf, 0.0]])
    assert sorted(least_change_assignment(certain, [1, 2]).tolist()) == [0, 1, 1]
    assert int(least_change_assignment(certain, [1, 2])[2]) == 1
    with pytest.raises(ValueError, match="sum to 2 for 3 images"):
        least_change_assignment(certain, [1, 1])


def test_the_random_order_has_the_counts_and_belongs_to_its_seed() -> None:
    orders = [seeded_assignment([2, 3, 0, 3], seed) for seed in range(40)]
    assert all(Counter(o.tolist()) == {0: 2, 1: 3, 3: 3} for o in orders)
    assert torch.equal(orders[7], seeded_assignment([2, 3, 0, 3], 7))
    assert len({tuple(o.tolist()) for o in orders}) > 30
    first = [int(o[0]) for o in orders]
    assert all(first.count(c) > 2 for c in (0, 1, 3)), "no class is tied to a place in the batch"
    assert seeded_assignment([1, 1], 2**64 - 1).shape == (2,)
