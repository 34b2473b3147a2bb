"""Which row of a U-Net call is which image, and in which role."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from equipoise.methods.rows import CONDITIONAL, UNCONDITIONAL, Rows, read_rows


def options(marks: list[int] | None, batch: int, **more: Any) -> dict[str, Any]:
    return {"sigmas": torch.full((batch,), 2.0), **({} if marks is None else {"cond_or_uncond": marks}), **more}


def table(rows: Rows | None) -> list[tuple[int, bool]]:
    assert rows is not None
    return list(zip(rows.image.tolist(), rows.conditional.tolist(), strict=True))


def test_plain_classifier_free_guidance_puts_the_unconditional_rows_first() -> None:
    rows = read_rows(6, options([1, 0], 3))
    assert table(rows) == [(0, False), (1, False), (2, False), (0, True), (1, True), (2, True)]
    assert rows.images == 3


@pytest.mark.parametrize(("marks", "conditional"), [([0], True), ([1], False)])
def test_a_call_of_its_own(marks: list[int], conditional: bool) -> None:
    assert table(read_rows(2, options(marks, 2))) == [(0, conditional), (1, conditional)]


def test_two_positives() -> None:
    assert table(read_rows(6, options([1, 0, 0], 2))) == [(0, False), (1, False), (0, True), (1, True), (0, True), (1, True)]


def test_roles_by_identity_go_before_numbers() -> None:
    """A guider that puts the negative first: [2, 1, 0], where 0 is the negative."""
    roles = {"p": CONDITIONAL, "m": CONDITIONAL, "n": UNCONDITIONAL}
    rows = read_rows(6, options([2, 1, 0], 2, uuids=["p", "m", "n"]), roles)
    assert table(rows) == [(0, True), (1, True), (0, True), (1, True), (0, False), (1, False)]
    unknown = read_rows(6, options([2, 1, 0], 2, uuids=["x", "y", "z"]), roles)
    assert table(unknown) == [(0, False), (1, False), (0, False), (1, False), (0, True), (1, True)]
    short = read_rows(4, options([1, 0], 2, uuids=["n"]), roles)
    assert table(short) == [(0, False), (1, False), (0, True), (1, True)]


def test_tiles_repeat_all_the_chunks() -> None:
    rows = read_rows(12, options([1, 0], 2))
    assert rows.image.tolist() == [0, 1] * 6
    assert rows.conditional.tolist() == [False, False, True, True] * 3


def test_one_image_and_no_marks() -> None:
    assert table(read_rows(1, options(None, 1))) == [(0, True)]
    assert table(read_rows(2, options([], 2))) == [(0, True), (1, True)]
    assert table(read_rows(2, options([1, 0], 1))) == [(0, False), (0, True)]


@pytest.mark.parametrize(("rows", "marks", "batch"), [(5, [1, 0], 2), (2, [1, 0], 2), (3, [0], 2), (7, [1, 0, 0], 2), (2, [0], 0)])
def test_what_does_not_divide_is_not_guessed(rows: int, marks: list[int], batch: int) -> None:
    assert read_rows(rows, options(marks, batch)) is None
