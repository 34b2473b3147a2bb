"""The help pages against the schemas of the nodes that are registered: every input with its default, and every output."""

from __future__ import annotations

import re
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import REPOSITORY

FILES = ("adp_name", "model_name", "classifier_name", "sae_name", "bias_features_name", "neuron_path_name", "head_name")
"""Combos over files, whose default depends on what is installed."""


@pytest.fixture(scope="module")
def schemas(host: Any) -> dict[str, Any]:
    """Node id -> V3 schema of every registered node."""
    from equipoise.nodes import all_nodes

    return {s.node_id: s for s in (node.define_schema() for node in all_nodes())}


def entries(node_id: str, heading: str) -> dict[str, tuple[str, str]]:
    """Read a heading's table: name -> (type and default, text). A row is "| `name` | text | type, default x |"."""
    page = (REPOSITORY / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    part = re.split(r"^## ", page.split(f"## {heading}\n", 1)[1], flags=re.M)[0]
    if "\n| " not in part:  # a page that still has its list: "- **name** (type, default x): text"
        lines = " ".join(part.split())
        return {name: (kind, text) for name, kind, text in re.findall(r"- \*\*(.+?)\*\* \((.+?)\): (.+?)(?= - \*\*|$)", lines)}
    rows = re.findall(r"^\| `(.+?)` \| (.+) \| (.+?) \|$", part, flags=re.M)
    return {name: (kind.replace("\\|", "|"), text.replace("\\|", "|")) for name, text, kind in rows}


def shown(default: Any) -> str:
    """A default as the pages write it."""
    if isinstance(default, str):
        first, more, _ = default.partition("\n")
        return "empty" if not default else f"{first} ..." if more else first
    return f"{default:g}"


def test_every_input_is_explained_with_its_default(schemas: dict[str, Any]) -> None:
    for node_id, schema in schemas.items():
        listed = entries(node_id, "Inputs")
        assert list(listed) == [i.id for i in schema.inputs], node_id
        for socket in schema.inputs:
            kind, text = listed[socket.id]
            default = getattr(socket, "default", None)
            if default is not None and socket.id not in FILES:
                assert kind.split(", default ")[1] == shown(default), f"{node_id}.{socket.id}"
                assert all(c in text for c in getattr(socket, "options", None) or []), f"{node_id}.{socket.id}"
            elif not hasattr(socket, "default"):
                assert kind == f"{socket.io_type}, {'optional' if socket.optional else 'required'}", f"{node_id}.{socket.id}"


def test_every_output_is_explained(schemas: dict[str, Any]) -> None:
    for node_id, schema in schemas.items():
        assert list(entries(node_id, "Outputs")) == [o.display_name or o.id for o in schema.outputs], node_id


def test_every_socket_has_a_tooltip_and_every_node_a_description(schemas: dict[str, Any]) -> None:
    for node_id, schema in schemas.items():
        assert len(schema.description) > 40, node_id
        for socket in [*schema.inputs, *schema.outputs]:
            assert socket.tooltip and len(socket.tooltip) >= 10, f"{node_id}.{socket.id}"


def test_braces_reach_the_nodes_that_want_them(schemas: dict[str, Any]) -> None:
    """The front end takes {...} for dynamic prompts, and {} away, unless it is told not to."""
    wanting = [s for schema in schemas.values() for s in schema.inputs if "{}" in str(getattr(s, "default", "")) + (s.tooltip or "")]
    assert len(wanting) >= 3
    assert all(s.multiline and s.dynamic_prompts is False for s in wanting)
