"""The tables of the README and of docs/evidence.md hold the figures that are kept in benchmarks/results/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from equipoise.benchmarks.summary import RESULTS, guidance_table, results, targets_table

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.stem for path in RESULTS.glob("*.json"))


def test_the_readme_shows_what_was_measured() -> None:
    table = guidance_table(results("guidance"))
    assert table in (ROOT / "README.md").read_text(encoding="utf-8"), f"README.md does not hold the table of the kept results:\n{table}"


def test_the_page_of_evidence_shows_what_was_measured() -> None:
    table = targets_table(results("guidance"))
    assert table in (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8"), f"docs/evidence.md does not hold it:\n{table}"


@pytest.mark.parametrize("name", FILES)
def test_every_result_tells_where_it_comes_from(name: str) -> None:
    figures = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert name == figures["benchmark"] + ("-quick" if figures["quick"] else "")
    assert len(figures["commit"]) == 40 and not figures["uncommitted_changes"] and figures["date"] >= "2026-11"
    assert figures["machine"]["cores"] and figures["machine"]["torch"] and figures["seconds"] > 0


def test_all_evidence_is_there() -> None:
    assert {"guidance", "steering", "overhead", "downstream", "sae"} <= set(FILES)
