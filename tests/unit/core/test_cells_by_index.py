"""One decision for a batch, however it is cut: cells by index follow the shares in every part that begins the batch, and over seeds."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from equipoise.methods.core.cells_by_index import cells_by_index

TABLES = {
    "half": ((0.5, 0.5), (2,)),
    "quarter": ((0.25, 0.75), (2,)),
    "thirds": ((1 / 3, 1 / 3, 1 / 3), (3,)),
    "uneven": ((0.4, 0.4, 0.2), (3,)),
    "joint": ((0.25, 0.25, 0.25, 0.25), (2, 2)),
    "joint of six": ((0.1, 0.2, 0.2, 0.1, 0.3, 0.1), (2, 3)),
}


@pytest.mark.parametrize("images", [8, None])
@pytest.mark.parametrize("name", TABLES)
def test_parts_and_picks_keep_the_cells_of_the_whole(name: str, images: int | None) -> None:
    shares, sizes = TABLES[name]
    for seed in range(20):
        whole = cells_by_index(shares, sizes, range(8), seed, images)
        alone = torch.cat([cells_by_index(shares, sizes, [i], seed, images) for i in range(8)])
        cut = torch.cat([cells_by_index(shares, sizes, part, seed, images) for part in (range(3), range(3, 6), range(6, 8))])
        assert torch.equal(whole, alone) and torch.equal(whole, cut)
        assert torch.equal(cells_by_index(shares, sizes, [5, 2], seed, images), whole[[5, 2]])


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("is_known", [True, False])
def test_counts_are_exact_where_they_can_be(name: str, is_known: bool) -> None:
    shares, sizes = TABLES[name]
    for seed in range(20):
        for n in (n for n in range(1, 61) if all(abs(n * s - round(n * s)) < 1e-9 for s in shares)):
            counts = Counter(cells_by_index(shares, sizes, range(n), seed, n if is_known else None).tolist())
            assert [counts[k] for k in range(len(shares))] == [round(n * s) for s in shares]


@pytest.mark.parametrize("name", TABLES)
def test_every_beginning_of_a_batch_is_near_its_shares(name: str) -> None:
    shares, sizes = TABLES[name]
    for seed in range(50):
        cells = cells_by_index(shares, sizes, range(64), seed)
        for n in range(1, 65):
            counts = torch.bincount(cells[:n], minlength=len(shares))
            assert all(abs(int(c) - n * s) < 2 for c, s in zip(counts, shares, strict=True))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("images", [1, 2, 3, 5])
@pytest.mark.parametrize("is_known", [True, False])
def test_over_random_seeds_every_image_gets_every_cell_with_its_share(name: str, images: int, is_known: bool) -> None:
    shares, sizes = TABLES[name]
    g, draws = random.Random(1), 2000
    size = images if is_known else None
    cells = torch.stack([cells_by_index(shares, sizes, range(images), g.getrandbits(64), size) for _ in range(draws)])
    for image in range(images):
        counts = torch.bincount(cells[:, image], minlength=len(shares))
        chi_square = sum((int(c) - draws * s) ** 2 / (draws * s) for c, s in zip(counts, shares, strict=True))
        assert chi_square < len(shares) - 1 + 6 * math.sqrt(2 * (len(shares) - 1)) + 6


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("images", [2, 4, 16, 64])
def test_a_queue_that_counts_its_seed_up_stays_near_the_target(name: str, images: int) -> None:
    shares, sizes = TABLES[name]
    runs = 256 // images
    cells = torch.cat([cells_by_index(shares, sizes, range(images), 1000 + s, images) for s in range(runs)])
    counts = torch.bincount(cells, minlength=len(shares)) / len(cells)
    assert (counts - torch.tensor(shares)).norm() < 0.02


def test_a_cell_without_a_share_gets_nothing() -> None:
    cells = cells_by_index((0.0, 0.6, 0.0, 0.4), (2, 2), range(50), 7)
    assert set(cells.tolist()) == {1, 3} and len(cells_by_index((0.5, 0.5), (2,), [], 0)) == 0


@pytest.mark.parametrize("step", [2, 3, 4, 10, 100, 1000])
def test_seeds_in_steps_get_all_classes(step: int) -> None:
    cells = torch.cat([cells_by_index((0.5, 0.5), (2,), [0], step * s) for s in range(200)])
    assert 60 < int(cells.sum()) < 140


@pytest.mark.parametrize("first", [0, 1, 42, 100, 1234, 12345])
@pytest.mark.parametrize("share", [0.5, 0.25, 0.125])
def test_eight_single_images_of_consecutive_seeds_follow_the_target_exactly(first: int, share: float) -> None:
    cells = torch.cat([cells_by_index((share, 1 - share), (2,), [0], first + s) for s in range(8)])
    assert int((cells == 0).sum()) == 8 * share
