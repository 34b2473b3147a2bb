"""Fairness Report on its node: a card of the summary, and a link to the report in HTML. What it needs: see conftest.py."""

from __future__ import annotations

from typing import Any

import pytest

LINK = ["Open the whole report"]


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_node_shows_a_card_and_opens_the_report(script: Any, page_current: Any, renderer: str) -> None:
    (found,) = script("report_node.mjs", page_current.url, renderer, "")
    seen = found["seen"]
    assert seen["ended"] == ["execution_success", ""]
    width, height = seen["picture"]
    assert 0 < height < width, "the node has room for the summary only"
    assert seen["links"] == LINK and seen["title"].startswith("Fairness report") and seen["sections"] > 2
    assert seen["elsewhere"] == [] and seen["back"] == LINK, "the link belongs to the tab that was run"
    assert not [e for e in found["errors"] if "quipoise" in e], found["errors"]
