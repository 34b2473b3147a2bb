"""Which row of a U-Net call is which image, and in which role."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.methods.core.rows import BY_NUMBER, CONDITIONAL, UNCONDITIONAL, Rows, read_rows


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
    strangers = read_rows(6, options([2, 1, 0], 2, uuids=["x", "y", "p"]), roles)
    assert table(strangers) == [(0, False), (1, False), (0, False), (1, False), (0, True), (1, True)]
    by_number = read_rows(6, options([2, 1, 0], 2, uuids=["x", "y", "z"]), {})
    assert table(by_number) == [(0, False), (1, False), (0, False), (1, False), (0, True), (1, True)]
    both = read_rows(4, options([1, 0], 2, uuids=["n", "n"]), {"n": BY_NUMBER})
    assert table(both) == [(0, False), (1, False), (0, True), (1, True)]
    short = read_rows(4, options([1, 0], 2, uuids=["n"]), roles)
    assert table(short) == [(0, False), (1, False), (0, True), (1, True)]


def test_tiles_repeat_all_the_chunks() -> None:
    rows = read_rows(12, options([1, 0], 2))
    assert rows.image.tolist() == [0, 1] * 6
    assert rows.conditional.tolist() == [False, False, True, True] * 3


def window(images: list[int], dim: int = 0, **more: int) -> Any:
    return SimpleNamespace(index_list=images, dim=dim, **more)


def test_a_context_window_over_the_batch_lists_its_images() -> None:
    seen = read_rows(4, options([1, 0], 2, context_window=window([3, 1])), images=6)
    assert table(seen) == [(3, False), (1, False), (3, True), (1, True)] and seen.images == 6
    anchored = read_rows(6, options([1, 0], 3, context_window=window([3, 4], causal_anchor_index=0)))
    assert anchored.image.tolist() == [0, 3, 4] * 2 and anchored.images == 5
    assert read_rows(2, options([0], 2, context_window=window([2, 3], causal_anchor_index=-1))).image.tolist() == [2, 3]
    along_the_height = read_rows(4, options([1, 0], 2, context_window=window([3, 1, 2], dim=2)))
    assert along_the_height.image.tolist() == [0, 1, 0, 1] and along_the_height.images == 2
    assert read_rows(4, options([1, 0], 2, context_window=window([3, 1, 2]))) is None


def test_one_image_and_no_marks() -> None:
    assert table(read_rows(1, options(None, 1))) == [(0, True)]
    assert table(read_rows(2, options([], 2))) == [(0, True), (1, True)]
    assert table(read_rows(2, options([1, 0], 1))) == [(0, False), (0, True)]


@pytest.mark.parametrize(("rows", "marks", "batch"), [(5, [1, 0], 2), (2, [1, 0], 2), (3, [0], 2), (7, [1, 0, 0], 2), (2, [0], 0)])
def test_what_does_not_divide_is_not_guessed(rows: int, marks: list[int], batch: int) -> None:
    assert read_rows(rows, options(marks, batch)) is None
