"""The editors of targets, and what Feature Atlas sends, in the real front ends of both supported hosts. What it needs: see conftest.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from equipoise.methods.core.target_text import parse_target

OURS = "quipoise"
"""Mark of the pack in an error's text or address."""
CLASSES = {
    "eyeglasses": ["yes", "no"],
    "hair": ["short", "long"],
    "skin_tone": ["light", "medium", "dark"],
    "profession": ["firefighter", "chef", "doctor", "teacher"],
}


def used(script: Any, server: Any, renderer: str, theme: str, scale: str) -> dict[str, Any]:
    """What came of using the editors."""
    (did,) = script("editors.mjs", server.url, renderer, theme, scale, "")
    return did


def weights(fields: dict[str, Any]) -> str:
    assert fields["preset"] == "weights"
    return fields["weights"]


def check(did: dict[str, Any]) -> None:
    assert not [e for e in did["errors"] if OURS in e]
    untouched, after = did["untouched"], did["after"]
    # Nothing is written before the user moves something, and nothing of ours is ever saved or queued.
    assert untouched["plain"]["values"] == ["eyeglasses", "weights", "yes=0.5, no=0.5"]
    assert untouched["joint"]["values"] == ["eyeglasses x hair", "weights", "yes/short=0.25\nyes/long=0.25\nno/short=0.25\nno/long=0.25"]
    assert untouched["three"]["values"] == ["skin", "weights", "light=20%, medium=30%, dark=50%"]
    assert {k: v["inputs"] for k, v in untouched.items()} == {k: v["inputs"] for k, v in after.items()}
    assert {k: v["size"] for k, v in untouched.items()} == {k: pytest.approx(v["size"], abs=1) for k, v in after.items()}
    assert "equipoise_" not in json.dumps([untouched, after, [node["inputs"] for node in did["prompt"].values()]])
    assert did["fits"] == []

    assert weights(did["keyboard"]) == "yes=0.55, no=0.45" and did["focusKept"]
    assert did["named"] == ["Share of yes in per cent", "55%", "solid"]
    assert weights(did["mouse"]) == "yes=0, no=1" and not did["nodeMoved"]
    assert weights(did["locked"]) == "light=20%, medium=60%, dark=20%"
    assert sorted(did["thirds"]["shares"]) == [33.3, 33.3, 33.4], "percentages add up to 100"
    assert weights(did["marginal"]) == "yes/short=0.35\nyes/long=0.35\nno/short=0.15\nno/long=0.15"
    cell = parse_target("eyeglasses x hair: " + weights(did["cell"]), CLASSES)
    assert cell.shares == pytest.approx((0.55 * 0.35 / 0.85, 0.55 * 0.35 / 0.85, 0.55 * 0.15 / 0.85, 0.45), abs=1e-3)
    assert [float(t.rstrip("%")) for t in did["totals"]] == pytest.approx([45.3, 54.7, 32.4, 67.6, 100], abs=0.11)

    assert did["even"] == {"attribute": "eyeglasses", "preset": "uniform", "weights": "yes=0, no=1"}
    assert did["typed"]["shares"] == [30, 70] and "'what is this' is not a weight" in did["typed"]["notes"][0]
    assert weights(did["typedField"]) == "yes=30%, what is this" and weights(did["typedEdited"]) == "yes=40%, what is this, no=60%"
    assert did["attribute"]["attribute"] == "skin_tone" and did["attributeShown"]["names"] == CLASSES["skin_tone"]
    assert "has no attribute 'hats'" in did["unknown"]["notes"][0] and did["unknownField"]["weights"] == did["attribute"]["weights"]
    assert did["joined"][0] == "The node joins these shares with the target at with_target."
    assert did["severalFocus"] == "attribute eyeglasses" and did["several"]["attribute"] == "hair x eyeglasses"
    several = parse_target("hair x eyeglasses: " + weights(did["several"]), CLASSES)
    assert several.shares == pytest.approx((0.1, 0.1, 0.4, 0.4)) and did["severalCells"] == [10, 10, 40, 40]
    assert did["severalLess"]["attribute"] == "hair" and weights(did["severalLess"]) == "short=0.2, long=0.8"
    assert did["fewer"]["attribute"] == "eyeglasses" and did["more"]["attribute"] == "eyeglasses x hair"
    more = parse_target("eyeglasses x hair: " + weights(did["more"]), CLASSES)
    assert more.shares == pytest.approx((0.2265, 0.2265, 0.2735, 0.2735), abs=1e-3)
    assert did["rerouted"]["notes"] == ["The class names come from portraits.safetensors."] and did["cutOff"]["notes"] == []

    steer = did["steer"]
    assert (steer["attribute"], steer["class_name"], steer["only"], steer["features"]) == ("skin_tone", "dark", "7", 0)
    assert did["toast"] and "now uses only #7 for skin_tone: dark" in did["toast"][0]
    assert (did["steerTwo"]["only"], did["steerOther"]["only"]) == ("7, 3", "3"), "with Shift: added, and taken out again"
    assert (did["steerByKey"]["attribute"], did["steerByKey"]["only"]) == ("hair", "12")
    assert did["inside"] is None or "has no attribute 'skin'. Choose from: eyeglasses, hair" in did["inside"]
    assert did["reloaded"]["same"] and did["reloaded"]["editors"] >= 3
    queued = {"attribute": "hats", "preset": "weights", "weights": "short=0.2, long=0.8", "adp": ["1", 0]}
    assert did["prompt"]["5"]["inputs"] == queued


@pytest.mark.parametrize(("renderer", "theme", "scale"), [("classic", "dark", "1"), ("vue", "light", "2")])
def test_the_editors_of_the_current_host(script: Any, page_current: Any, renderer: str, theme: str, scale: str) -> None:
    check(used(script, page_current, renderer, theme, scale))


def test_the_editors_of_the_oldest_host(script: Any, page_floor: Any) -> None:
    check(used(script, page_floor, "classic", "light", "1"))
