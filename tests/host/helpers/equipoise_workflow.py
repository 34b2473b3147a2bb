"""Turn a workflow into the prompt that the front end queues.

It converts the UI format (version 0.4) to the API format, by the host's /object_info.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTES = ("MarkdownNote", "Note")
"""Node types of the front end that the host does not know; they take no part in a run."""
CONTROLS = ("fixed", "increment", "decrement", "randomize")
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def inputs_of(definition: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """List (name, type, options) of a node's inputs in the host's order.

    A combo's choices are in options["options"], on every host.
    """
    found = []
    for kind in ("required", "optional"):
        for name in definition["input_order"].get(kind, []):
            what, *rest = definition["input"][kind][name]
            options = dict(rest[0]) if rest else {}
            if isinstance(what, list):
                what, options["options"] = "COMBO", what
            found.append((name, what, options))
    return found


def is_widget(kind: str, options: Mapping[str, Any]) -> bool:
    """Tell whether an input shows as a field of the node."""
    return kind in _WIDGETS and not options.get("forceInput")


def widget_names(definition: Mapping[str, Any]) -> list[str]:
    """Return a widget name for each entry of widgets_values.

    The entry after a seed ("control after generate") has the name "".
    """
    names = []
    for name, kind, options in inputs_of(definition):
        if is_widget(kind, options):
            names += [name, ""] if options.get("control_after_generate") else [name]
    return names


def to_api(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Make the prompt that the front end would queue.

    Raises ValueError if a node has more or fewer widget values than the host's schema.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        names, values = widget_names(object_info[node["type"]]), node["widgets_values"]
        if len(names) != len(values):
            raise ValueError(f"{node['type']} {node['id']}: the host has the widgets {names} and the file the values {values}.")
        inputs = {name: value for name, value in zip(names, values, strict=True) if name}
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
