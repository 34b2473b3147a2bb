"""The queued graph and the node's place in it, as the host passes them to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...host.core.queue_check import misfit
from ...host.core.types import Graph

if TYPE_CHECKING:
    from comfy_api.latest import io


def queued_graph(cls: type[io.ComfyNode]) -> Graph | None:
    """Return the queued graph in API form; None outside of a queue."""
    return getattr(getattr(cls, "hidden", None), "prompt", None)


def queued_id(cls: type[io.ComfyNode]) -> str | None:
    """Return the node's id in the queued graph; None outside of a queue."""
    return getattr(getattr(cls, "hidden", None), "unique_id", None)


def checked_strength(cls: type[io.ComfyNode], strength: float, least: float, most: float) -> bool | str:
    """Check what is known of an editing node before the graph runs: its strength, and that its files belong to the model.

    The host leaves the range of an input to a node that validates it.
    """
    if not least <= strength <= most:
        return f"strength is {strength:g} and must be between {least:g} and {most:g}."
    return misfit(queued_id(cls)) or True
