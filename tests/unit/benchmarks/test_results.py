"""Test that the tables of docs/ hold the figures that are kept in benchmarks/results/."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from equipoise.benchmarks.guidance.summary import RESULTS, guidance_table, results, targets_table

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(path.stem for path in RESULTS.glob("*.json"))


@pytest.mark.parametrize("make_table", [guidance_table, targets_table])
def test_the_page_of_evidence_shows_what_was_measured(make_table: Callable[[Mapping[str, Any]], str]) -> None:
    table = make_table(results("guidance"))
    page = (ROOT / "docs" / "evidence" / "methods.md").read_text(encoding="utf-8")
    assert table in page, f"docs/evidence/methods.md does not hold it:\n{table}"


@pytest.mark.parametrize("name", FILES)
def test_every_result_tells_where_it_comes_from(name: str) -> None:
    figures = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert name == figures["benchmark"] + ("-quick" if figures["quick"] else "")
    assert len(figures["commit"]) == 40 and not figures["uncommitted_changes"] and figures["date"] >= "2026-11"
    assert figures["machine"]["cores"] and figures["machine"]["torch"] and figures["seconds"] > 0


def test_all_evidence_is_there() -> None:
    assert {"guidance", "steering", "overhead", "downstream", "sae", "ledger", "endurance"} <= set(FILES)


def test_the_page_on_queues_shows_what_was_measured() -> None:
    told, page = results("ledger"), (ROOT / "docs" / "queue.md").read_text(encoding="utf-8")
    for name, target in (("eyeglasses 50%", "eyeglasses"), ("skin tone, thirds", "skin_tone")):
        fair = next(q["noise_floor"] for key, q in told["queues"].items() if key.startswith(target))
        assert f"| {name} | {told['fd_with'][target]:.3f} | {told['fd_without'][target]:.3f} | {fair:.3f} |" in page
    two, killed = told["two_processes"], told["killed"]
    assert f"FD {two['eyeglasses']['fd']:.3f} (eyeglasses), {two['skin_tone']['fd']:.3f} (skin tone)" in page
    assert told["rows_lost"] == told["rows_double"] == 0 and f"{killed['equal']} of {killed['kills']} times" in page
    held = results("endurance")
    assert f"{held['resident_ratio']:.3f} times the memory" in page and held["identical_after"] == held["cancelled"] == 30
    assert f"{held['passes_gone_on_with']} finished passes" in page
