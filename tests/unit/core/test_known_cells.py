"""Images of earlier runs are recognised by their picture and by their noise, and no others are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from equipoise.methods.core.known_cells import MOST_IMAGES, KnownCells
from torch import Tensor

SHAPES = {"latents": (4, 16, 12), "pixels": (3, 32, 32), "video": (16, 3, 8, 8), "sound": (8, 200)}


def smooth(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Latents with the coarse layout that pictures have."""
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
    return x.flatten(2).cumsum(2).reshape(x.shape) if len(shape) > 1 else x


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return SHAPES[request.param]


def test_pictures_keep_their_cells_in_any_order_and_after_small_changes(shape: tuple[int, ...]) -> None:
    known, samples = KnownCells(), smooth(6, shape)
    known.add([0, 1, 2, 0, 1, 2], samples, None)
    assert known.of_pictures(samples[[4, 0]]) == [1, 0]
    assert known.of_pictures(samples + 0.02 * samples.std() * torch.randn(samples.shape)) == [0, 1, 2, 0, 1, 2]
    assert known.of_pictures(2 * samples) == [0, 1, 2, 0, 1, 2]


def test_a_larger_picture_is_the_same_picture() -> None:
    known, samples = KnownCells(), smooth(3, (4, 16, 16))
    known.add([2, 0, 1], samples, None)
    assert known.of_pictures(F.interpolate(samples, scale_factor=2, mode="bilinear")) == [2, 0, 1]


def test_one_unknown_picture_makes_all_unknown(shape: tuple[int, ...]) -> None:
    known, samples = KnownCells(), smooth(2, shape)
    assert known.of_pictures(samples) is None
    known.add([0, 1], samples, None)
    assert known.of_pictures(torch.cat([samples[:1], smooth(1, shape, seed=9)])) is None
    assert known.of_pictures(torch.zeros(1, *shape)) is None


def test_noise_is_known_by_seed_and_index() -> None:
    known = KnownCells()
    known.add([0, 1, 1], smooth(3, (4, 8, 8)), (7, [3, 4, 5]))
    assert known.of_noise(7, [5, 3]) == [1, 0]
    assert known.of_noise(7, [2, 3]) is None and known.of_noise(8, [3]) is None


def test_a_later_run_replaces_an_earlier_one_and_memory_is_bounded() -> None:
    known, samples = KnownCells(), smooth(64, (4, 8, 8))
    known.add([0] * 64, samples, (1, range(64)))
    known.add([1] * 64, samples, (1, range(64)))
    assert known.of_noise(1, [0]) == [1] and known.of_pictures(samples[:1]) == [1]
    for seed in range(MOST_IMAGES // 64 + 8):
        known.add([0] * 64, samples, (seed + 2, range(64)))
    assert known.of_noise(1, [0]) is None and sum(len(cells) for _, cells in known._marks.values()) <= MOST_IMAGES
