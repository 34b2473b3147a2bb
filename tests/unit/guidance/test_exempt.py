"""Rows of exempt conditionings: in no role, not read, not edited, not recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.methods.core.rows import CONDITIONAL, EXEMPT, UNCONDITIONAL, read_rows
from equipoise.methods.core.run import Call
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.data.recording import RecordingRun, RecordingSettings
from equipoise.methods.guidance.moves import GRADIENT
from equipoise.methods.guidance.run import GuidanceRun, GuidanceSettings
from equipoise.models.adp import AdpFile
from equipoise.models.sites import MIDDLE
from torch import Tensor

ATTRIBUTES = {"eyeglasses": ("no", "yes")}
C, B = 6, 4
ROLES = {"p": CONDITIONAL, "x": EXEMPT, "n": UNCONDITIONAL, "y": EXEMPT}


@pytest.fixture(scope="module")
def adp(load_module: Callable[[Path, str], Any], repository: Path) -> AdpFile:
    return random_adp(ATTRIBUTES, C)


def options(uuids: str, marks: list[int]) -> dict[str, Any]:
    return {"sigmas": torch.full((B,), 1.3), "cond_or_uncond": marks, "uuids": list(uuids)}


def h(chunks: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(chunks * B, C, 8, 8, generator=torch.Generator().manual_seed(seed))


def changed(before: Tensor, after: Tensor) -> list[bool]:
    """By chunk; the rows of a chunk have to agree."""
    rows = (before != after).flatten(1).any(1).view(-1, B)
    assert (rows.all(1) == rows.any(1)).all()
    return rows.all(1).tolist()


def run_of(adp: AdpFile, **settings: Any) -> GuidanceRun:
    return GuidanceRun(adp, GuidanceSettings(parse_target("eyeglasses: uniform", ATTRIBUTES), **settings))


def test_exempt_rows_are_of_neither_side() -> None:
    rows = read_rows(4 * B, options("nxpy", [1, 0, 0, 1]), ROLES)
    by_chunk = [[bool(part[i * B]) for i in range(4)] for part in (rows.conditional, rows.unconditional, rows.exempt)]
    assert by_chunk == [[False, False, True, False], [True, False, False, False], [False, True, False, True]]
    plain = read_rows(2 * B, options("ab", [1, 0]))
    assert not plain.exempt.any() and torch.equal(plain.unconditional, ~plain.conditional)


SETTINGS = [{}, {"direction": GRADIENT}, {"mode": "kl", "strength": 0.1}, {"mode": "chi-square", "strength": 0.1}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("rows", "expected"), [("cond", [False, False, True]), ("cond+uncond", [True, False, True])])
def test_exempt_rows_are_neither_read_nor_edited(adp: AdpFile, settings: dict[str, Any], rows: str, expected: list[bool]) -> None:
    with_exempt, alone = run_of(adp, rows=rows, **settings), run_of(adp, rows=rows, **settings)
    x = h(3)
    out = with_exempt.edit(MIDDLE, x, Call.read(options("nxp", [1, 0, 0]), ROLES))
    assert changed(x, out) == expected
    without = torch.cat([x[:B], x[2 * B :]])
    other = alone.edit(MIDDLE, without, Call.read(options("np", [1, 0]), ROLES))
    torch.testing.assert_close(torch.cat([out[:B], out[2 * B :]]), other)
    assert with_exempt.readings == alone.readings
    assert (with_exempt.cells is None and alone.cells is None) or torch.equal(with_exempt.cells, alone.cells)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_calls_of_exempt_rows_alone_are_left_alone(adp: AdpFile, settings: dict[str, Any]) -> None:
    for rows in ("cond", "cond+uncond"):
        run, x = run_of(adp, rows=rows, **settings), h(1)
        assert torch.equal(run.edit(MIDDLE, x, Call.read(options("x", [0]), ROLES)), x)
        assert run.cells is None and not run.readings.shares


@pytest.mark.parametrize("settings", [*SETTINGS, {"assign": "seeded"}], ids=str)
def test_a_run_that_is_wholly_exempt_does_nothing_at_all(adp: AdpFile, settings: dict[str, Any]) -> None:
    run, x = run_of(adp, rows="cond+uncond", **settings), h(2)
    run.exempt = True
    assert run.edit(MIDDLE, x, Call.read(options("nx", [1, 0]), ROLES)) is x
    assert run.cells is None and run.summary().exempt


def test_exempt_rows_are_not_recorded() -> None:
    def record(uuids: str, marks: list[int]) -> Any:
        run = RecordingRun(RecordingSettings(unconditional=True))
        run.begin()
        number = torch.arange(len(marks)).repeat_interleave(B).float()
        run.edit(MIDDLE, number[:, None, None, None].expand(-1, C, 8, 8), Call.read(options(uuids, marks), ROLES))
        run.end()
        run.finish()
        return run.recording

    made = record("xnpy", [0, 1, 0, 1])
    assert (made.features == 2).all() and (made.unconditional[0] == 1).all()
    with pytest.raises(ValueError, match="every positive is exempt from guidance"):
        record("nx", [1, 0])
