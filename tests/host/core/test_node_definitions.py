"""The nodes as the host describes them, against tests/host/node_definitions.json: no change that breaks a saved graph lands unnoticed.

After a change on purpose, EQUIPOISE_DEFINITIONS=accept python dev.py test tests/host/core/test_node_definitions.py writes additions
into the file. A change that breaks graphs is only written with EQUIPOISE_DEFINITIONS=break, and belongs into CHANGELOG.md.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import Server
from equipoise_definitions import FILES, Definition, definitions, differences

FILE = Path(__file__).resolve().parents[1] / "node_definitions.json"
HOW = "EQUIPOISE_DEFINITIONS={} python dev.py test tests/host/core/test_node_definitions.py"


def pinned() -> dict[str, Definition]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def written(nodes: dict[str, Definition]) -> str:
    """The file: a line per input and output, so that a change reads as one."""
    lines = []
    for name, node in nodes.items():
        parts = []
        for key in ("inputs", "outputs"):
            sockets = ",\n".join(f"   {json.dumps(s)}" for s in node[key])
            parts.append(f'  "{key}": [\n{sockets}\n  ]' if sockets else f'  "{key}": []')
        lines.append(f' "{name}": {{\n' + ",\n".join([*parts, f'  "output_node": {json.dumps(node["output_node"])}']) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def test_the_nodes_are_those_that_were_published(server: Server) -> None:
    """On both hosts, whose descriptions of the same schemas differ in nothing that is pinned."""
    found = definitions(server.get("/object_info"))
    breaking, harmless = differences(pinned(), found)
    wanted = os.environ.get("EQUIPOISE_DEFINITIONS", "")
    if wanted == "break" or (wanted == "accept" and not breaking):
        FILE.write_text(written(found), encoding="utf-8", newline="\n")
        return
    said = []
    if breaking:
        said.append("These changes BREAK saved graphs or API prompts:\n  " + "\n  ".join(breaking))
        said.append(f"Take them back; or, if graphs are to break, say so in CHANGELOG.md and run: {HOW.format('break')}")
    if harmless:
        said.append("These changes break no graph:\n  " + "\n  ".join(harmless) + f"\nTo pin them run: {HOW.format('accept')}")
    assert not said, "\n" + "\n".join(said)
    assert found == pinned(), f"the definitions differ in what neither breaks nor adds; look at them, then run: {HOW.format('accept')}"


def test_no_file_list_is_pinned() -> None:
    nodes = pinned()
    assert len(nodes) >= 61 and written(nodes) == FILE.read_text(encoding="utf-8")
    inputs = [i for node in nodes.values() for i in node["inputs"]]
    assert not [i for i in inputs if any(str(o).endswith((".safetensors", ".json")) for o in i.get("options", []))]
    assert {i["name"] for i in inputs if i["type"] == "COMBO" and "options" not in i} == FILES & {i["name"] for i in inputs}


def one(**changes: Any) -> Definition:
    """A node to change: two required inputs, an optional one, two outputs."""
    node: Definition = {
        "inputs": [
            {"name": "model", "type": "MODEL", "required": True},
            {"name": "mode", "type": "COMBO", "required": True, "default": "a", "options": ["a", "b"]},
            {"name": "size", "type": "FLOAT", "required": False, "default": 1.0, "min": 0.0, "max": 2.0, "step": 0.1},
        ],
        "outputs": [{"name": "MODEL", "type": "MODEL"}, {"name": "report", "type": "STRING"}],
        "output_node": True,
    }
    return node | changes


def changed(change: Callable[[Definition], Any]) -> tuple[list[str], list[str]]:
    node = copy.deepcopy(one())
    change(node)
    return differences({"N": one()}, {"N": node})


EXTRA = {"name": "more", "type": "INT", "required": False, "default": 0}
BREAKS: list[tuple[str, Callable[[Definition], Any]]] = [
    ("the input 'size' is gone", lambda n: n["inputs"].pop()),
    ("in another order: mode, model, size", lambda n: n["inputs"].insert(0, n["inputs"].pop(1))),
    ("'more' is required", lambda n: n["inputs"].append(EXTRA | {"required": True})),
    ("'more' stands before others", lambda n: n["inputs"].insert(2, EXTRA)),
    ("'size' is required now", lambda n: n["inputs"][2].update(required=True)),
    ("'size' was of type FLOAT and is of type INT", lambda n: n["inputs"][2].update(type="INT")),
    ("'mode' no longer offers 'b'", lambda n: n["inputs"][1].update(options=["a", "c"])),
    ("another min: 0.0 became 0.5", lambda n: n["inputs"][2].update(min=0.5)),
    ("another max: 2.0 became 1.5", lambda n: n["inputs"][2].update(max=1.5)),
    ("'size' has another default: 1.0 became 0.5", lambda n: n["inputs"][2].update(default=0.5)),
    ("another 'control_after_generate'", lambda n: n["inputs"][2].update(control_after_generate=True)),
    ("another 'forceInput'", lambda n: n["inputs"][2].update(forceInput=True)),
    ("the output 'report' is gone", lambda n: n["outputs"].pop()),
    ("output 0 was 'MODEL' of type MODEL and is 'report'", lambda n: n["outputs"].reverse()),
    ("output 0 was called 'MODEL' and is called 'report'", lambda n: n["outputs"][0].update(name="report")),
    ("no longer an output node", lambda n: n.update(output_node=False)),
]
KEEPS: list[tuple[str, Callable[[Definition], Any]]] = [
    ("a new optional input 'more'", lambda n: n["inputs"].append(EXTRA)),
    ("output 1 was called 'report' and is called 'text'", lambda n: n["outputs"][1].update(name="text")),
    ("a new output 'chart'", lambda n: n["outputs"].append({"name": "chart", "type": "IMAGE"})),
    ("'mode' offers 'c' too", lambda n: n["inputs"][1]["options"].append("c")),
    ("another max: 2.0 became 3.0", lambda n: n["inputs"][2].update(max=3.0)),
    ("another step: 0.1 became 0.05", lambda n: n["inputs"][2].update(step=0.05)),
    ("'mode' has another default: 'a' became 'b'", lambda n: n["inputs"][1].update(default="b")),
    ("'mode' is optional now", lambda n: n["inputs"][1].update(required=False)),
]


@pytest.mark.parametrize(("said", "change"), BREAKS, ids=[s for s, _ in BREAKS])
def test_what_breaks_a_graph_is_said_to(said: str, change: Callable[[Definition], Any]) -> None:
    breaking, _ = changed(change)
    assert any(said in line for line in breaking), breaking


@pytest.mark.parametrize(("said", "change"), KEEPS, ids=[s for s, _ in KEEPS])
def test_what_breaks_none_is_told_apart(said: str, change: Callable[[Definition], Any]) -> None:
    breaking, harmless = changed(change)
    assert not breaking and any(said in line for line in harmless)


def test_a_node_that_goes_breaks_graphs_and_one_that_comes_does_not() -> None:
    assert differences({"N": one()}, {}) == (["N: the node is gone"], [])
    assert differences({}, {"N": one()}) == ([], ["N: a new node"])
    assert differences({"N": one()}, {"N": one()}) == ([], [])
