"""Call nodes as the host does: every value by the id of its input."""

from __future__ import annotations

from typing import Any


def execute(node: Any, *values: Any, **named: Any) -> Any:
    """Run a node with values for its first inputs, in the order of its schema, and others by the ids of their inputs."""
    inputs = [socket.id for socket in node.define_schema().inputs]
    return node.execute(**dict(zip(inputs, values, strict=False)), **named)
