"""Joint Target."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...methods.core.targets import PRESETS, product, target_from_form
from ..core.sockets import GUIDANCE, Adp, BiasFeatures, Classifier, Target, schema
from .target_inputs import ADP_TIP, CLASSIFIER_TIP, FEATURES_TIP, PRESET_TIP, known_classes


class JointTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseJointTarget",
            display_name="Joint Target",
            category=GUIDANCE,
            description=(
                "States a joint target: the share of every combination of two or more perceived attributes. Even if each "
                "attribute is balanced, a combination can be empty; a joint target prevents this. It can also join two targets as "
                "independent."
            ),
            search_aliases=["intersectional", "joint distribution", "balance"],
            inputs=[
                io.String.Input("attributes", default="eyeglasses x hair", tooltip="Names of the attributes with ' x ' between them."),
                io.Combo.Input("preset", options=list(PRESETS), default="weights", tooltip=PRESET_TIP),
                io.String.Input(
                    "weights",
                    default="yes/short=0.25\nyes/long=0.25\nno/short=0.25\nno/long=0.25",
                    multiline=True,
                    tooltip="CLASS/CLASS=WEIGHT, separated by commas or lines, with the classes in the order of the attributes. Weights "
                    "are divided by their sum. Cells that you leave out share the rest up to 1.",
                ),
                Adp.Input("adp", optional=True, tooltip=ADP_TIP),
                Classifier.Input("classifier", optional=True, tooltip=CLASSIFIER_TIP),
                Target.Input(
                    "first",
                    optional=True,
                    tooltip="First of two targets to join as independent. The weights are then not read. It needs 'second'.",
                ),
                Target.Input("second", optional=True, tooltip="Second of the two targets to join, over other attributes."),
                BiasFeatures.Input("bias_features", optional=True, tooltip=FEATURES_TIP),
            ],
            outputs=[
                Target.Output(
                    "target",
                    display_name="target",
                    tooltip="The target, for the guidance nodes, Bias Feature Steer and Attribute Histogram.",
                ),
                io.String.Output("text", display_name="text", tooltip="The target as text, and how the weights were changed."),
            ],
        )

    @classmethod
    def execute(
        cls,
        attributes: str,
        preset: str,
        weights: str,
        adp: Any = None,
        classifier: Any = None,
        first: Any = None,
        second: Any = None,
        bias_features: Any = None,
    ) -> io.NodeOutput:
        if (first is None) != (second is None):
            raise ValueError("Joint Target joins two targets: connect both 'first' and 'second', or neither and write the table.")
        if first is not None:
            target = product(first, second)
        else:
            target = target_from_form(attributes, preset, weights, known_classes(adp, classifier, bias_features))
        return io.NodeOutput(target, "\n".join([str(target), *target.notes]))


NODES = [JointTarget]
