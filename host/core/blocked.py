"""Outputs that a node cannot give this time."""

from __future__ import annotations

from comfy_execution.graph_utils import ExecutionBlocker


def blocked(reason: str) -> ExecutionBlocker:
    """Nodes that wait for the output do not run, and the host shows the reason; nodes that do not are not disturbed."""
    return ExecutionBlocker(reason)
