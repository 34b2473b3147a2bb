"""Label Features From Prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ...methods.data.feature_set import FeatureSet
from ...methods.labels.label_text import labels_from_prompts, parse_classes
from ...methods.labels.labels import LabelSet
from ..core.sockets import MAKE, schema
from .source_inputs import (
    CLASSES_TIP,
    PERCEIVED,
    features_input,
    first_problem,
    label_output,
    label_outputs,
    labels_input,
)

PROMPT_CLASSES = "eyeglasses: yes=with eyeglasses|wearing glasses, no=..."
REFUSE, UNSURE = "refuse", "unsure"


class LabelFeaturesFromPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesFromPrompts",
            display_name="Label Features From Prompts",
            category=MAKE,
            description=(
                "Labels the pictures of a feature set by the words of the prompts that made them. Use it for models that follow "
                "such words reliably, and check with Label Features. No picture is read. " + PERCEIVED
            ),
            search_aliases=["annotate", "caption", "words", "attribute"],
            inputs=[
                features_input(),
                io.String.Input(
                    "classes",
                    default=PROMPT_CLASSES,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip=f"{CLASSES_TIP} The phrases must occur in the prompts as whole words. Three dots stand for all prompts that "
                    "no other class names.",
                ),
                io.Combo.Input(
                    "unmatched",
                    options=[REFUSE, UNSURE],
                    default=REFUSE,
                    tooltip="What to do with a prompt that names no class. refuse: stop and name the prompt. unsure: give its picture "
                    "equal probabilities.",
                ),
                labels_input(),
            ],
            outputs=label_outputs(),
        )

    @classmethod
    def validate_inputs(cls, classes: str) -> bool | str:
        return first_problem(lambda: parse_classes(classes)) if classes else True

    @classmethod
    def execute(
        cls, features: FeatureSet, classes: str = PROMPT_CLASSES, unmatched: str = REFUSE, labels: LabelSet | None = None
    ) -> io.NodeOutput:
        spec = parse_classes(classes)
        prompts = [e.prompt for e in features.entries]
        new_labels = LabelSet(
            {a: tuple(named) for a, named in spec.items()},
            tuple(e.file for e in features.entries),
            {a: labels_from_prompts(prompts, named, a, unmatched == UNSURE) for a, named in spec.items()},
            dict.fromkeys(spec, "prompts"),
        )
        return label_output(labels, new_labels)


NODES = [LabelFeaturesFromPrompts]
