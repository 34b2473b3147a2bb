"""Where images came from, as a queued graph tells: which nodes, with which values and seeds. No host is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Graph = Mapping[str, Any]
"""A prompt in API form: node id -> {"class_type", "inputs", ...}; an input is a value, or [node id, output]."""
LONGEST = 400
SECRET = re.compile(r"api.?key|token|password|secret", re.IGNORECASE)
SEED = re.compile(r"(^|_)seed$", re.IGNORECASE)


def is_link(value: Any) -> bool:
    """Return whether an input comes from another node."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int)


def upstream(graph: Graph, node_id: str, inputs: Sequence[str]) -> list[str]:
    """List the ids of all nodes that feed the named inputs of a node.

    Directly or through others, the first in the chain first. Unknown ids are left out.
    """
    order: list[str] = []
    seen: set[str] = set()
    waiting: list[tuple[str, bool]] = []
    for name in reversed(inputs):
        link = graph.get(str(node_id), {}).get("inputs", {}).get(name)
        if is_link(link):
            waiting.append((str(link[0]), False))
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
        elif node in graph and node not in seen:
            seen.add(node)
            waiting.append((node, True))
            links = [str(v[0]) for v in graph[node].get("inputs", {}).values() if is_link(v)]
            waiting += [(n, False) for n in reversed(links)]
    return order


def settings(graph: Graph, node_id: str, inputs: Sequence[str]) -> list[tuple[str, str, str]]:
    """List the settings of the nodes that made a node's images.

    Rows (node, which images, values), the first in the chain first. Inputs without a link do not count. Nodes without values of their own
    are left out.
    """
    made = {name: nodes for name in inputs if (nodes := upstream(graph, node_id, [name]))}
    rows = []
    for node in dict.fromkeys(n for nodes in made.values() for n in nodes):
        which = [name for name, nodes in made.items() if node in nodes]
        if values := values_of(graph[node]):
            rows.append((name_of(graph[node]), "all" if len(which) == len(made) > 1 else ", ".join(which), values))
    return rows


def seeds(graph: Graph, node_id: str, name: str) -> list[int]:
    """List the seeds of the nodes upstream of an input, each once.

    A linked seed counts as the value that it is linked to.
    """
    ids = []
    for node in upstream(graph, node_id, [name]):
        for key, value in graph[node].get("inputs", {}).items():
            if SEED.search(key):
                value = _resolved(graph, value)
                if isinstance(value, int) and not isinstance(value, bool):
                    ids.append(value)
    return list(dict.fromkeys(ids))


def texts(graph: Graph, nodes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """List the text values of nodes, such as file names.

    Each has the node's type and the input's name, which tell the kind of file.
    """
    for node in nodes:
        kind = str(graph[node].get("class_type", ""))
        yield from ((f"{kind} {k}", v) for k, v in graph[node].get("inputs", {}).items() if isinstance(v, str) and v)


def name_of(node: Mapping[str, Any]) -> str:
    """Return a node's type, with its title if that differs."""
    kind, title = str(node.get("class_type", "")), str((node.get("_meta") or {}).get("title") or "")
    return f"{title} ({kind})" if title and title != kind else kind


def values_of(node: Mapping[str, Any]) -> str:
    """Write the values of a node that are not linked, as "steps=20, cfg=1.0".

    Values that look like passwords are left out, and long texts are cut.
    """
    parts = []
    for key, value in node.get("inputs", {}).items():
        if is_link(value):
            continue
        text = "..." if SECRET.search(key) else " ".join(str(value).split())
        parts.append(f"{key}={text if len(text) <= LONGEST else text[: LONGEST - 2] + '..'}")
    return ", ".join(parts)


def _resolved(graph: Graph, value: Any) -> Any:
    """Return the number behind a link.

    It is the only number among the values of the node that the input is linked to, or else the value itself.
    """
    if not is_link(value):
        return value
    numbers = [v for v in graph.get(str(value[0]), {}).get("inputs", {}).values() if isinstance(v, int) and not isinstance(v, bool)]
    return numbers[0] if len(numbers) == 1 else None
