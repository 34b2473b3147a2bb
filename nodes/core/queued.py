"""The queued graph and the node's place in it, as the host passes them to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...host.core.types import Graph

if TYPE_CHECKING:
    from comfy_api.latest import io


def queued_graph(cls: type[io.ComfyNode]) -> Graph | None:
    """Return the queued graph in API form; None outside of a queue."""
    return getattr(getattr(cls, "hidden", None), "prompt", None)


def queued_id(cls: type[io.ComfyNode]) -> str | None:
    """Return the node's id in the queued graph; None outside of a queue."""
    return getattr(getattr(cls, "hidden", None), "unique_id", None)
