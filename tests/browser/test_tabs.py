"""The live bar and the thumbnails when targets change, tabs are left and opened again, and another workflow is open."""

from __future__ import annotations

import re
from typing import Any

import pytest


@pytest.fixture(scope="module")
def seen(script: Any, page_current: Any) -> dict[str, Any]:
    """What the nodes show at each moment of tabs.mjs."""
    (found,) = script("tabs.mjs", page_current.url)
    assert not [e for e in found["errors"] if "quipoise" in e], found["errors"]
    return found["seen"]


def test_the_line_of_the_target_moves_with_the_target(seen: dict[str, Any]) -> None:
    assert (seen["half"]["lines"], seen["fifth"]["lines"]) == (["50%"], ["20%"])


def test_percentages_add_up_to_100(seen: dict[str, Any]) -> None:
    for name in ("half", "fifth", "halves"):
        shares = [[int(n) for n in re.findall(r"(\d+)%", text)] for text in seen[name]["texts"]]
        assert [sum(column) for column in zip(*shares, strict=True)] == [100, 100]


def test_no_row_of_pictures_is_cut(seen: dict[str, Any]) -> None:
    assert seen["half"]["pictures"] and not any(seen["half"]["cut"])


def test_what_a_tab_showed_is_there_again(seen: dict[str, Any]) -> None:
    assert seen["back"]["lines"] == seen["fifth"]["lines"] and seen["back"]["pictures"] == seen["fifth"]["pictures"]
    assert seen["back"]["texts"] == seen["fifth"]["texts"]


def test_a_run_is_not_drawn_on_another_workflow(seen: dict[str, Any]) -> None:
    for name in ("elsewhere", "other"):
        assert seen[name]["lines"] == [] and seen[name]["pictures"] == []


def test_a_template_that_was_opened_twice_has_two_tabs(seen: dict[str, Any]) -> None:
    """The front end gives both tabs one workflow id."""
    assert seen["twin"]["lines"] == [] and seen["twin"]["pictures"] == []
    assert seen["first"]["lines"] and seen["first"]["pictures"]


def test_results_from_the_cache_are_shown_on_the_tab_that_was_run(seen: dict[str, Any]) -> None:
    assert seen["copied"]["pictures"] == [] and seen["cached"]["pictures"] == seen["first"]["pictures"]
