"""Faults of a queued graph that can be said before it runs: files that do not belong to the model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import folder_paths

from ...models.files import read_metadata
from .model_family import family_of_file
from .sites import other_family
from .types import Graph

QUEUED: ContextVar[Graph | None] = ContextVar("equipoise_queued", default=None)
"""The graph that the host validates now. The host shows a node its own inputs only, so the graph is noted when it arrives."""
MODEL_LOADERS = {
    "CheckpointLoaderSimple": ("checkpoints", "ckpt_name"),
    "CheckpointLoader": ("checkpoints", "ckpt_name"),
    "UNETLoader": ("diffusion_models", "unet_name"),
    "EquipoiseLoadUnconditionalDiffusion": ("equipoise_diffusion", "model_name"),
    "EquipoiseLoadQuickstartTextModel": ("equipoise_diffusion", "model_name"),
}
"""Loader of a MODEL -> the host's key of its folder, and its widget."""
FILE_LOADERS = {
    "adp": ("ADP", "EquipoiseLoadADP", "equipoise_adp", "adp_name"),
    "sae": ("autoencoder", "EquipoiseLoadSAE", "equipoise_sae", "sae_name"),
    "bias_features": ("bias features", "EquipoiseLoadBiasFeatures", "equipoise_bias_features", "bias_features_name"),
}
"""Socket -> name of its file in messages, its loader, the key of its folder, and the loader's widget."""
MOST_NODES = 64
"""Length of the longest chain of MODEL nodes that is followed."""


def note_queued(message: dict[str, Any]) -> dict[str, Any]:
    """Note the graph of a message that queues a prompt; return the message as it is."""
    QUEUED.set(message.get("prompt"))
    return message


def register_queue_check() -> None:
    """Let the host's server note every queued graph. A second call, or a call without a server, changes nothing."""
    server: Any = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and note_queued not in server.on_prompt_handlers:
        server.add_on_prompt_handler(note_queued)


def misfit(node: str | None) -> str | None:
    """Say which file of a guidance or steering node was made for another model family than its MODEL.

    Returns None where all belong together, or where it cannot be known before the graph runs.
    """
    graph = QUEUED.get()
    if not isinstance(graph, Mapping) or node is None or str(node) not in graph:
        return None
    family = _model_family(graph, str(node))
    for socket, (what, loader, key, widget) in FILE_LOADERS.items():
        source = _source(graph, str(node), socket)
        if family is None or source is None or graph[source].get("class_type") != loader:
            continue
        made_for = _made_for(key, graph[source]["inputs"].get(widget))
        if made_for and made_for != family:
            return other_family(what, made_for, family)
    return None


def _model_family(graph: Graph, node: str) -> str | None:
    """Follow the MODEL of a node to its loader, and read the family of the file."""
    for _ in range(MOST_NODES):
        source = _source(graph, node, "model")
        if source is None:
            return None
        node = source
        if graph[node].get("class_type") in MODEL_LOADERS:
            key, widget = MODEL_LOADERS[graph[node]["class_type"]]
            path = _path(key, graph[node]["inputs"].get(widget))
            return None if path is None else family_of_file(path)
    return None


def _source(graph: Graph, node: str, socket: str) -> str | None:
    """Return the node that an input is linked to."""
    link = (graph[node].get("inputs") or {}).get(socket)
    is_link = isinstance(link, (list, tuple)) and len(link) == 2 and str(link[0]) in graph
    return str(link[0]) if is_link else None


def _made_for(key: str, name: object) -> str | None:
    path = _path(key, name)
    try:
        return None if path is None else read_metadata(path).get("base_model")
    except (OSError, ValueError):
        return None


def _path(key: str, name: object) -> Path | None:
    """Return the path of a safetensors file that a loader names; None if there is none."""
    path = folder_paths.get_full_path(key, name) if isinstance(name, str) and key in folder_paths.folder_names_and_paths else None
    return None if path is None or not path.endswith((".safetensors", ".sft")) else Path(path)
