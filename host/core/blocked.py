"""Block an output of a node for one run."""

from __future__ import annotations

from comfy_execution.graph_utils import ExecutionBlocker


def blocked(reason: str) -> ExecutionBlocker:
    """Return an output that stops the nodes behind it.

    The host shows the reason, and other nodes run.
    """
    return ExecutionBlocker(reason)
