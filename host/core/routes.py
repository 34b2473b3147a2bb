"""What the front end asks the server: attributes and classes of a chosen file, read from its metadata without its tensors."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from ...models.files import DAMAGE, misfit, named_classes, read_metadata
from ...models.transformers_classifier import stated_classes
from ..labels.classifier import KEY, classifier_choices, resolve_classifier
from . import folders

CLASSES = "/equipoise/classes"
KINDS = {"adp": "equipoise_adp", "classifier": KEY, "bias_features": "equipoise_bias_features"}
"""Sockets by which a target learns of classes, and the folder of each one's files."""


def attributes_of(kind: str, name: str) -> dict[str, tuple[str, ...]]:
    """Attribute -> classes that a file states, as the node would know them that loads it.

    kind: a key of KINDS; name: as the loader's combo shows it, anything else is refused, so that no path leads out of the folders.
    Raises ValueError, in one sentence, for another kind or name, and for a file that states none.
    """
    if kind not in KINDS:
        raise ValueError(f"classes are known of {', '.join(KINDS)}, not of '{kind[:60]}': ask for one of them.")
    key = KINDS[kind]
    if name not in (classifier_choices() if key == KEY else folders.choices(key)):
        raise ValueError(f"'{name[:120]}' is not in {folders.folder_hint(key)}: put the file there or choose another one.")
    path = resolve_classifier(name) if key == KEY else folders.resolve(key, name)
    if path.is_dir():
        attribute, classes = stated_classes(path)
        return {attribute: classes}
    metadata = read_metadata(path)
    if "attributes" not in metadata:
        raise ValueError(f"'{path.name}' states no attributes: choose a file that this pack wrote.")
    try:
        stated = json.loads(metadata["attributes"])
        return named_classes({a: said["classes"] for a, said in stated.items()} if kind == "bias_features" else stated)
    except DAMAGE as error:
        raise misfit(path.name, error, "so choose another one") from error


def register_routes() -> None:
    """Make the routes known to the host's server. Calling it twice changes nothing, nor does it where no server runs."""
    module = sys.modules.get("server")  # loaded where the host serves; importing it here would load it in scripts that only want nodes
    server: Any = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is None or _taken(server.routes):
        return
    from aiohttp import web

    @server.routes.get(CLASSES)
    async def classes(request: web.Request) -> web.Response:
        asked = request.query.get("kind", ""), request.query.get("name", "")
        try:
            found = await asyncio.to_thread(attributes_of, *asked)
        except (OSError, *DAMAGE) as error:
            return web.json_response({"error": str(error)})  # no 404: a browser puts one on its console
        return web.json_response({"attributes": {a: list(c) for a, c in found.items()}})


def _taken(routes: Sequence[Any]) -> bool:
    return any(getattr(route, "path", None) == CLASSES for route in routes)
