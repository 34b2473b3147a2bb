"""Level tables: what moves and profiles have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from equipoise.models.adp import Move
from equipoise.models.bias_features import Profile
from equipoise.models.level_table import LevelTable

KNOTS = torch.tensor([-2.0, 0.0, 2.0])


def tables(rows: int = 1, relative: bool = False) -> list[LevelTable]:
    values = torch.randn(3, 2, rows, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    return [Move("middle", KNOTS, values, sizes, relative=relative), Profile(KNOTS, values, sizes, relative=relative)]


@pytest.mark.parametrize("rows", [1, 2])
def test_a_move_and_a_profile_of_the_same_numbers_do_the_same(rows: int) -> None:
    classes, reading = torch.tensor([0, 1, 1]), torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    move, profile = tables(rows)
    assert torch.equal(move.towards(classes, reading, 0.5), profile.towards(classes, reading, 0.5))
    assert move.window == profile.window == (-2.0, 2.0) and move.by_reading == (rows == 2)
    assert move.digest("x") == profile.digest("x") != profile.with_gain(1, 2.0).digest("x")


def test_without_a_reading_every_class_counts_alike() -> None:
    for table in [*tables(2), *tables(1, relative=True)]:
        uniform = torch.full((2, 2), 0.5)
        assert torch.equal(table.towards(torch.arange(2), None, 0.5), table.towards(torch.arange(2), uniform, 0.5))


def test_a_relative_table_adds_nothing_to_an_image_that_is_read_as_its_class() -> None:
    for table in tables(1, relative=True):
        assert not table.towards(torch.arange(2), torch.eye(2), 0.5).any()


@pytest.mark.parametrize("rows", [1, 2])
def test_another_order_of_the_classes_changes_no_step(rows: int) -> None:
    reading = torch.tensor([[0.3, 0.7]])
    for table in tables(rows):
        turned = table.reordered([1, 0]).towards(torch.tensor([0]), reading[:, [1, 0]], 0.5)
        torch.testing.assert_close(turned, table.towards(torch.tensor([1]), reading, 0.5))
        assert table.reordered([0, 1]) is table


def test_a_table_comes_back_from_its_tensors() -> None:
    for table in tables():
        back = replace(table, **type(table).read_stored(table.stored("x"), "x"))
        torch.testing.assert_close(back.values, table.values, atol=2e-3, rtol=1e-3)
        assert torch.equal(back.sizes, table.sizes) and back.fits(2, 5) and not back.fits(3) and not back.fits(2, 6)
        with pytest.raises(KeyError):
            type(table).read_stored({}, "x")
