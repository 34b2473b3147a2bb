"""Quotas of joint targets: shares hold in the long run, and every attribute is as even as it can be in every batch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from equipoise.methods.allocation import quotas
from equipoise.methods.joint_quotas import ONE, joint_quotas, roundings, serpentine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import chi2

SHAPES = [(2, 2), (3, 2), (2, 3, 2)]
NEAR = 1e-9


def class_counts(counts: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Images of every class of every attribute: [..., cells] -> [..., classes of all attributes]."""
    classes = np.stack(np.unravel_index(np.arange(math.prod(sizes)), sizes), axis=1)
    return np.concatenate([counts @ np.eye(size)[classes[:, a]] for a, size in enumerate(sizes)], axis=-1)


def misses(counts: np.ndarray, sizes: tuple[int, ...], shares: np.ndarray) -> np.ndarray:
    """By how many images the classes are outside their expected count rounded down and up."""
    expected, got = class_counts(shares * counts.sum(-1, keepdims=True), sizes), class_counts(counts, sizes)
    above, below = got - np.ceil(expected - NEAR), np.floor(expected + NEAR) - got
    return np.maximum(above, 0).sum(-1) + np.maximum(below, 0).sum(-1)


def fewest_misses(sizes: tuple[int, ...], shares: np.ndarray, n: int) -> float:
    """The fewest misses that any rule can have on average that rounds cells up or down and keeps their expectation."""
    low = np.floor(shares * n + NEAR)
    rest = shares * n - low
    up = np.array([[c in chosen for c in range(len(shares))] for chosen in itertools.combinations(range(len(shares)), n - int(low.sum()))])
    solved = linprog(misses(low + up, sizes, shares), A_eq=up.T.astype(float), b_eq=rest)
    assert solved.status == 0
    return solved.fun


@st.composite
def targets(draw: st.DrawFn, shapes: list[tuple[int, ...]], most_images: int) -> tuple[tuple[int, ...], np.ndarray, int]:
    sizes = draw(st.sampled_from(shapes))
    weights = draw(st.lists(st.integers(0, 12), min_size=math.prod(sizes), max_size=math.prod(sizes)).filter(any))
    return sizes, np.array(weights) / sum(weights), draw(st.integers(1, most_images))


def outcomes(sizes: tuple[int, ...], shares: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, counts [outcomes, cells]) of a batch of n."""
    probabilities, counts = zip(*roundings(tuple(shares), sizes, n), strict=True)
    assert sum(probabilities) == ONE
    return np.array(probabilities) / ONE, np.array(counts)


@given(targets([*SHAPES, (1, 4), (5, 3), (2, 2, 2, 2)], 40))
@settings(max_examples=150, derandomize=True, database=None, deadline=None)
def test_expected_counts_are_the_target_and_cells_are_rounded_up_or_down(target: tuple[tuple[int, ...], np.ndarray, int]) -> None:
    sizes, shares, n = target
    probabilities, counts = outcomes(*target)
    np.testing.assert_allclose(probabilities @ counts, n * shares, atol=NEAR)
    assert (counts.sum(1) == n).all() and (np.abs(counts - n * shares) < 1).all()


@given(targets([(2, 2), (3, 2), (2, 3), (4, 3), (5, 6)], 40))
@settings(max_examples=150, derandomize=True, database=None, deadline=None)
def test_no_class_of_two_attributes_is_further_from_its_share_than_rounding_explains(
    target: tuple[tuple[int, ...], np.ndarray, int],
) -> None:
    assert not misses(outcomes(*target)[1], *target[:2]).any()


@pytest.mark.parametrize("sizes", [(2, 3, 2), (2, 2, 2), (3, 3, 3), (2, 2, 2, 2), (4, 3, 2)])
def test_no_class_is_with_equal_shares(sizes: tuple[int, ...]) -> None:
    shares = np.full(math.prod(sizes), 1 / math.prod(sizes))
    for n in range(1, 17):
        assert not misses(outcomes(sizes, shares, n)[1], sizes, shares).any(), n


@given(targets([(2, 2, 2), (2, 3, 2)], 8))
@settings(max_examples=40, derandomize=True, database=None, deadline=None)
def test_classes_of_three_attributes_are_as_even_as_any_rule_can_make_them(target: tuple[tuple[int, ...], np.ndarray, int]) -> None:
    sizes, shares, n = target
    probabilities, counts = outcomes(*target)
    assert probabilities @ misses(counts, sizes, shares) == pytest.approx(fewest_misses(sizes, shares, n), abs=1e-6)


def test_what_no_rule_can_make_even_keeps_its_shares() -> None:
    """Of two images of these four cells, some attribute always has both in one class."""
    shares = np.zeros((2, 2, 2))
    shares[[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]] = 0.25
    probabilities, counts = outcomes((2, 2, 2), shares.ravel(), 2)
    np.testing.assert_allclose(probabilities @ counts, 2 * shares.ravel(), atol=NEAR)
    assert (misses(counts, (2, 2, 2), shares.ravel()) == 2).all() and fewest_misses((2, 2, 2), shares.ravel(), 2) == pytest.approx(2)


@pytest.mark.parametrize("sizes", SHAPES)
def test_ten_thousand_batches(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(sizes))
    cells = math.prod(sizes)
    for shares in [np.full(cells, 1 / cells), *rng.dirichlet(np.ones(cells), 4)]:
        total, expected = np.zeros(cells), np.zeros(cells)
        for n in range(1, 9):
            batches = np.array([joint_quotas(shares, sizes, n, int(seed)) for seed in rng.integers(2**63, size=250)])
            assert (batches.sum(1) == n).all()
            if fewest_misses(sizes, shares, n) < NEAR:
                assert not misses(batches, sizes, shares).any(), n
            total, expected = total + batches.sum(0), expected + 250 * n * shares
        assert chi2.sf(((total - expected) ** 2 / expected).sum(), cells - 1) > 0.001


@pytest.mark.parametrize("sizes", [*SHAPES, (5, 4)])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_seeds_in_a_row_are_even(sizes: tuple[int, ...], n: int) -> None:
    """256 batches one by one, seeds counted up from anywhere: cells and classes stay near the target."""
    cells = math.prod(sizes)
    for shares in [np.full(cells, 1 / cells), np.arange(1, cells + 1) / (cells * (cells + 1) / 2)]:
        for start in (0, 123456789, 2**64 - 100):
            counts = np.sum([joint_quotas(shares, sizes, n, seed % 2**64) for seed in range(start, start + 256)], axis=0)
            assert np.abs(counts - 256 * n * shares).max() < 4
            assert np.abs(class_counts(counts - 256 * n * shares, sizes)).max() < 5


def test_one_attribute_is_as_before() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        shares, n, seed = tuple(rng.dirichlet(np.ones(5))), int(rng.integers(1, 40)), int(rng.integers(2**63))
        assert joint_quotas(shares, (5,), n, seed) == quotas(shares, n, seed)


def test_offsets_at_both_ends() -> None:
    for seed in (0, 2**64 - 1, -0xF1DE83E19937733D % 2**64):  # the last one's offset is 1 - 2^-64, which floats round to 1
        assert sum(joint_quotas((0.25,) * 4, (2, 2), 3, seed)) == 3


def test_a_hundred_cells_and_large_batches() -> None:
    rng = np.random.default_rng(0)
    for sizes, n in [((10, 10), 4096), ((10, 10), 50), ((5, 5, 4), 64)]:
        shares = rng.dirichlet(np.ones(math.prod(sizes)))
        probabilities, counts = outcomes(sizes, shares, n)
        np.testing.assert_allclose(probabilities @ counts, n * shares, atol=NEAR)
        assert not misses(counts, sizes, shares).any()


@pytest.mark.parametrize("sizes", [(4,), (3, 2), (2, 3, 2), (3, 3, 3)])
def test_neighbours_in_serpentine_order_differ_by_one_class_of_one_attribute(sizes: tuple[int, ...]) -> None:
    order = serpentine(sizes)
    assert sorted(order) == list(range(math.prod(sizes)))
    cells = np.stack(np.unravel_index(order, sizes), axis=1)
    assert (np.abs(np.diff(cells, axis=0)).sum(1) == 1).all()
