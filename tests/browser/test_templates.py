"""Templates in the real front end, as a user meets them: opened from the template browser and run; a graph wired by hand; the oldest host.

What it needs: see conftest.py. With EQUIPOISE_SLOW_TEMPLATES set, every template that needs no download is run (half an hour); without it
those that take seconds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
QUICK = {"1 Start here, no download": {12: 16, 13: 1, 18: 16, 19: 1}, "5 A queue of single images": {}}
"""Templates that run in seconds, and how many pictures their nodes show; {}: at least one."""
SLOW = (
    "Lab quickstart_professions", "Lab quickstart_text", "Lab bias_feature_steer_quickstart", "Lab label_audit", "6 Report",
    "Lab balanced_dataset",
    "Lab neuron_path_audit", "Lab find_bias_features_quickstart", "Lab train_adp_quickstart",
)  # fmt: skip
"""Templates that run on what ships, and take from half a minute to ten."""

def check(report: dict[str, Any]) -> None:
    """A template is open: all of its nodes are known, none lies on another or leaves its frame, and the console is quiet."""
    workflow = json.loads((WORKFLOWS / f"{report['name']}.json").read_text(encoding="utf-8"))
    assert report["errors"] == [] and report["unknown"] == [], report
    assert report["overlapping"] == [] and report["outside"] == [], report
    assert (report["nodes"], report["groups"]) == (len(workflow["nodes"]), len(workflow["groups"]))


def ran(report: dict[str, Any], shown: dict[int, int]) -> None:
    """It was run as well, and its pictures are there."""
    assert report["error"] == "" and report["pictures"], report
    assert not shown or {int(i): n for i, n in report["pictures"].items()} == shown


@pytest.mark.parametrize("renderer", [(), ("--nodes2", "--light")], ids=["canvas-dark", "html-light"])
def test_every_template_opens_and_the_quick_ones_run(script: Any, page_current: Any, tmp_path: Path, renderer: tuple[str, ...]) -> None:
    quick = () if renderer else QUICK
    jobs = [f"{name}:run" if name in quick else name for name in NAMES]
    start, *reports = script("templates.mjs", page_current.url, tmp_path, *renderer, *jobs)
    assert start["errors"] == [] and start["start"]["missing"] == [] and start["start"]["offered"]
    assert [report["name"] for report in reports] == NAMES
    for report in reports:
        check(report)
        assert (tmp_path / f"{report['name']}.png").stat().st_size > 20_000
        if report["name"] in quick:
            ran(report, QUICK[report["name"]])


@pytest.mark.skipif(not os.environ.get("EQUIPOISE_SLOW_TEMPLATES"), reason="half an hour: set EQUIPOISE_SLOW_TEMPLATES to run them all")
@pytest.mark.parametrize("name", SLOW)
def test_the_slow_ones_run_too(script: Any, page_current: Any, tmp_path: Path, name: str) -> None:
    _, report = script("templates.mjs", page_current.url, tmp_path, f"{name}:run")
    check(report)
    ran(report, {})


KEPT = (2, 3, 5, 6, 15, 18)
"""Of the quickstart: model, noise, ADP, target, decoder and preview."""
PLACES = {2: (0, 0), 3: (0, 200), 5: (0, 400), 6: (0, 570), 15: (1000, 0), 18: (1000, 130)}
WISHES = {
    "search": "Distribution Guidance KSampler",
    "add": "EquipoiseDistributionGuidanceKSampler",
    "at": [710, 60],
    "widgets": {"steps": 8, "seed": 5, "sampler_name": "ddim", "cfg": 1.0},
    "links": [
        ["EquipoiseLoadUnconditionalDiffusion", "MODEL", "EquipoiseDistributionGuidanceKSampler", "model"],
        ["EquipoiseLoadUnconditionalDiffusion", "unconditional", "EquipoiseDistributionGuidanceKSampler", "positive"],
        ["EquipoiseLoadUnconditionalDiffusion", "unconditional", "EquipoiseDistributionGuidanceKSampler", "negative"],
        ["EquipoiseEmptyPixelLatent", "LATENT", "EquipoiseDistributionGuidanceKSampler", "latent_image"],
        ["EquipoiseLoadADP", "ADP", "EquipoiseDistributionGuidanceKSampler", "adp"],
        ["EquipoiseTargetDistribution", "target", "EquipoiseDistributionGuidanceKSampler", "target"],
        ["EquipoiseDistributionGuidanceKSampler", "LATENT", "VAEDecode", "samples"],
        ["VAEDecode", "IMAGE", "PreviewImage", "images"],
    ],
}


def without_sampler() -> dict[str, Any]:
    """The quickstart's nodes that stand before and after a sampler, with a batch of four."""
    workflow = json.loads((WORKFLOWS / "1 Start here, no download.json").read_text(encoding="utf-8"))
    nodes = [n for n in workflow["nodes"] if n["id"] in KEPT]
    links = [link for link in workflow["links"] if link[1] in KEPT and link[3] in KEPT]
    numbers = {link[0] for link in links}
    for n in nodes:
        n["pos"] = list(PLACES[n["id"]])
        if n["type"] == "EquipoiseEmptyPixelLatent":
            n["widgets_values"][2] = 4
        for slot in n["inputs"]:
            slot["link"] = slot["link"] if slot["link"] in numbers else None
        for slot in n["outputs"]:
            slot["links"] = [number for number in slot["links"] or [] if number in numbers] or None
    return {**workflow, "nodes": nodes, "links": links, "groups": []}


def test_a_node_from_the_search_box_is_wired_by_hand_and_runs(script: Any, page_current: Any, tmp_path: Path) -> None:
    start, wishes, picture = tmp_path / "start.json", tmp_path / "wishes.json", tmp_path / "wired.png"
    graph = without_sampler()
    start.write_text(json.dumps(graph), encoding="utf-8")
    wishes.write_text(json.dumps(WISHES), encoding="utf-8")
    (report,) = script("wire.mjs", page_current.url, picture, start, wishes)
    assert all(link in report["wired"] for link in WISHES["links"]), report["wired"]
    assert len(report["wired"]) == len(WISHES["links"]) + len(graph["links"])
    assert report["error"] == "" and report["pictures"] == {"18": 4}, report
    assert report["changed"] == [], "another graph after the reload"
    assert report["errors"] == [] and report["again"] == []


def test_the_oldest_hosts_front_end_takes_it_all(script: Any, page_floor: Any, tmp_path: Path) -> None:
    start, *reports = script("templates.mjs", page_floor.url, tmp_path, "--load", *NAMES)
    assert start["errors"] == [] and start["start"]["missing"] == [] and start["start"]["offered"]
    for report in reports:
        assert report["errors"] == [] and report["unknown"] == [] and report["nodes"] > 10, report
