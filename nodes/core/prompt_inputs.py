"""How users say which prompts name which class, alike in every node that asks."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

TEMPLATES = "a photo of a person {}"
CLASSES = "yes: wearing eyeglasses\nno: without eyeglasses"


def prompt_class_inputs() -> list[Any]:
    """Attribute, templates and classes, for ``prompt_classes``. Dynamic prompts are off: they would take the ``{}`` away."""
    return [
        io.String.Input("attribute", default="eyeglasses", tooltip="Name of the attribute, as targets will use it."),
        io.String.Input(
            "templates",
            default=TEMPLATES,
            multiline=True,
            dynamic_prompts=False,
            tooltip="Prompts with {} where the class is named, one per line: of the kind that you will use. Latents are shared out over "
            "them; with nothing in its place they are the neutral prompts.",
        ),
        io.String.Input(
            "classes",
            default=CLASSES,
            multiline=True,
            dynamic_prompts=False,
            tooltip="One class per line as CLASS: PHRASE. Several phrases, separated by |, are used in turn.",
        ),
    ]
