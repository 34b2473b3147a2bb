"""How users say which prompts name which class, alike in every node that asks."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

TEMPLATES = "a photo of a person {}"
CLASSES = "yes: wearing eyeglasses\nno: without eyeglasses"


def prompt_class_inputs() -> list[Any]:
    """Attribute, templates and classes, for ``prompt_classes``. Dynamic prompts are off: they would take the ``{}`` away."""
    return [
        io.String.Input("attribute", default="eyeglasses", tooltip="Name of the attribute, as your targets will use it."),
        io.String.Input(
            "templates",
            default=TEMPLATES,
            multiline=True,
            dynamic_prompts=False,
            tooltip="Prompts with {} where the class is named, one per line. Write prompts of the kind that you will use. Latents are "
            "divided among them. With nothing in place of {} they are the neutral prompts.",
        ),
        io.String.Input(
            "classes",
            default=CLASSES,
            multiline=True,
            dynamic_prompts=False,
            tooltip="One class per line, as CLASS: PHRASE. Several phrases, separated by |, are used in turn.",
        ),
    ]
