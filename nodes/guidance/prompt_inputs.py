"""Inputs that describe the classes of an attribute by prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ...methods.guidance.prompt_classes import PromptClasses, parse_prompt_classes
from ..core.inputs import Widgets

TEMPLATES = "a photo of a person {}"
CLASSES = "yes: wearing eyeglasses\nno: without eyeglasses"


class PromptClassInputs:
    """An attribute whose classes are described by prompts."""

    def inputs(self) -> list[io.Input]:
        """List attribute, templates and classes. Dynamic prompts are off, because they would remove ``{}``."""
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

    def take(self, widgets: Widgets) -> PromptClasses:
        """Return the prompts of the classes. Raises ValueError for texts that do not fit together."""
        return parse_prompt_classes(widgets["attribute"], widgets["templates"], widgets["classes"])


PROMPT_CLASSES = PromptClassInputs()
