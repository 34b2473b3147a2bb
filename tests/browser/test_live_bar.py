"""The live bar and the thumbnails in the real front ends of both supported hosts (conftest.py), while their servers sample."""

from __future__ import annotations

import re
from typing import Any

import pytest

OURS = "quipoise"
"""Mark of the pack in an error's text or address."""


def watched(script: Any, server: Any, renderer: str, theme: str) -> dict[str, Any]:
    """What the script saw: a graph with the three nodes and a histogram, queued and drawn to its end."""
    (found,) = script("live_bar.mjs", server.url, renderer, theme, "")
    return found


def check(found: dict[str, Any]) -> None:
    ours = [e for e in found["errors"] if OURS in e]
    assert not ours, ours
    assert found["states"]["ended"] == "execution_success"
    # Three nodes, two of them on one MODEL. Each went through several states, and their last is that of the last step.
    seen = found["states"]["seen"]
    assert len(seen) == 3 and all(len(states) >= 5 for states in seen.values()), {k: len(v) for k, v in seen.items()}
    for states in seen.values():
        assert states[-1].count("24 images assigned") == 2
        assert all(re.match(r"eyeglasses: yes \d+%, target 50%.*; no \d+%, target 50%", s) for s in states), states
    for bar in found["shown"]["bars"]:
        assert bar["step"] == "20 steps done" and bar["spoken"].startswith("20 steps done. eyeglasses: ")
        assert bar["lines"] == 1 and bar["focus"] and bar["visible"] and max(bar["cut"]) <= 1
    (thumbs,) = found["shown"]["thumbs"]
    assert len(thumbs["images"]) == 48 and thumbs["focus"] and thumbs["loaded"]
    assert sum(line.startswith("assigned: yes") for image in thumbs["images"] for line in image["lines"]) == 24
    for image in thumbs["images"]:
        given, seen_class = (line.split(": ")[1] for line in image["lines"])
        assert image["missed"] == (given != seen_class)
    stopped = found["stopped"]
    assert stopped["ended"] == "execution_interrupted", stopped
    assert any(text.startswith("stopped after step") for text in stopped["bars"]) and not any(t.startswith("step") for t in stopped["bars"])
    # Nothing of it is saved or queued. Sizes: those of the nodes on which the host itself shows no picture.
    before, after = found["before"], found["after"]
    assert before["output"] == after["output"] and len(before["nodes"]) == 5
    for old, new in zip(before["nodes"], after["nodes"], strict=True):
        pictures = old["type"] in ("EquipoiseDistributionGuidanceKSampler", "EquipoiseAttributeHistogram")
        assert {**old, "size": 0} == {**new, "size": 0} and (pictures or old["size"] == new["size"]), old["type"]


@pytest.mark.parametrize(("renderer", "theme"), [("classic", "dark"), ("vue", "light")])
def test_the_current_front_end(script: Any, page_current: Any, renderer: str, theme: str) -> None:
    check(watched(script, page_current, renderer, theme))


def test_the_oldest_front_end(script: Any, page_floor: Any) -> None:
    """Its renderer of nodes in HTML was an experiment that draws no widget that comes later, the host's own included."""
    check(watched(script, page_floor, "classic", "light"))
