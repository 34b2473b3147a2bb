"""Answer the front end's question: which attributes and classes does a chosen file have? Only its metadata is read."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from ...models.files import DAMAGE, misfit_error, named_classes, read_metadata
from ...models.transformers_classifier import stated_classes
from ..core import files as model_files
from .classifier import KEY, classifier_choices, resolve_classifier

CLASSES_ROUTE = "/equipoise/classes"
KINDS = {"adp": "equipoise_adp", "classifier": KEY, "bias_features": "equipoise_bias_features"}
"""Kinds of files that state classes, as target nodes name them, and the key of each kind's folder."""


def attributes_of(kind: str, name: str) -> dict[str, tuple[str, ...]]:
    """Return the classes of every attribute that a file states.

    ``kind``: a key of KINDS. ``name``: as the loader's combo shows it; every other name is refused, so no path leads out of the folders.
    Raises ValueError for another kind or name, and for a file that states no attributes.
    """
    if kind not in KINDS:
        raise ValueError(f"classes are known of {', '.join(KINDS)}, not of '{kind[:60]}': ask for one of them.")
    key = KINDS[kind]
    if name not in (classifier_choices() if key == KEY else model_files.choices(key)):
        raise ValueError(model_files.missing_text(key, name))
    path = resolve_classifier(name) if key == KEY else model_files.resolve(key, name)
    if path.is_dir():
        attribute, classes = stated_classes(path)
        return {attribute: classes}
    metadata = read_metadata(path)
    if "attributes" not in metadata:
        raise ValueError(f"'{path.name}' states no attributes: choose a file that this pack wrote.")
    try:
        stated = json.loads(metadata["attributes"])
        return named_classes({a: entry["classes"] for a, entry in stated.items()} if kind == "bias_features" else stated)
    except DAMAGE as error:
        raise misfit_error(path.name, error, "so choose another one") from error


def register_routes() -> None:
    """Add the route to the host's server.

    A second call, or a call without a server, changes nothing.
    """
    module = sys.modules.get("server")  # present if the host serves; an import would load it in scripts that only want nodes
    server: Any = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is None or _is_registered(server.routes):
        return
    from aiohttp import web

    @server.routes.get(CLASSES_ROUTE)
    async def classes(request: web.Request) -> web.Response:
        query = request.query.get("kind", ""), request.query.get("name", "")
        try:
            attributes = await asyncio.to_thread(attributes_of, *query)
        except (OSError, *DAMAGE) as error:
            return web.json_response({"error": str(error)})  # no 404: a browser puts one on its console
        return web.json_response({"attributes": {a: list(c) for a, c in attributes.items()}})


def _is_registered(routes: Sequence[Any]) -> bool:
    return any(getattr(route, "path", None) == CLASSES_ROUTE for route in routes)
