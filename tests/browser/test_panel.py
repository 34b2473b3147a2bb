"""The sliders of a target and the front end's properties panel, which lists the fields of nodes. What it needs: see conftest.py."""

from __future__ import annotations

from typing import Any

import pytest

OWN = ["attribute", "preset", "weights"]


def names(moment: dict[str, Any]) -> list[str]:
    """Names of the fields that the panel shows; the node's name or a value may follow in a line of its own."""
    return [text.splitlines()[0] for text in moment["fields"]]


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_panel_leaves_the_sliders_on_their_node(script: Any, page_current: Any, renderer: str) -> None:
    (found,) = script("panel.mjs", page_current.url, renderer, "")
    seen = found["seen"]
    assert not [e for e in found["errors"] if "quipoise" in e and "/docs/" not in e], found["errors"]
    assert names(seen["selected"]) == names(seen["all"]) == OWN
    assert names(seen["subgraph"]) == [*OWN, "Shares"], "the panel of a subgraph lists hidden widgets too"
    width, height = seen["before"]["size"]
    assert width > 300 and height > 60
    for moment in ("selected", "all", "after"):
        assert seen[moment]["size"] == [width, height] and seen[moment]["onNode"], moment
