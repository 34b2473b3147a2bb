"""What the user wants: a target over one attribute, or a joint table over several."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...methods.core.targets import PRESETS, product, target_from_form
from ..core.sockets import GUIDANCE, Adp, BiasFeatures, Classifier, Target, schema

_PRESET_TIP = "'weights' uses the weights below. 'uniform' gives every class the same share."
_ADP_TIP = "Checks the names against this ADP. You can then use 'uniform', or leave out classes, without naming the classes."
_CLASSIFIER_TIP = "Checks the names against this classifier if no ADP is connected."
_FEATURES_TIP = "Checks the names against these bias features if neither an ADP nor a classifier is connected."


def _known(adp: Any, classifier: Any, bias_features: Any) -> Any:
    """Attribute -> classes, by the first that is connected."""
    source = adp if adp is not None else classifier
    if source is not None:
        return source.attributes
    return None if bias_features is None else {a: found.classes for a, found in bias_features.attributes.items()}


class TargetDistribution(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTargetDistribution",
            display_name="Target Distribution",
            category=GUIDANCE,
            description="States the target: the share of images that each class of one perceived attribute is to have. Connect it "
            "to Distribution Guidance or Bias Feature Steer.",
            search_aliases=["fair", "balance", "debias", "share", "half and half"],
            inputs=[
                io.String.Input(
                    "attribute",
                    default="eyeglasses",
                    tooltip="Name of the attribute, as in the ADP. The output text of Load ADP lists the names.",
                ),
                io.Combo.Input("preset", options=list(PRESETS), default="weights", tooltip=_PRESET_TIP),
                io.String.Input(
                    "weights",
                    default="yes=0.5, no=0.5",
                    multiline=True,
                    tooltip="One CLASS=WEIGHT per class, separated by commas or lines. Weights are divided by their sum. You can also "
                    "write percentages. Classes that you leave out share the rest up to 1.",
                ),
                Adp.Input("adp", optional=True, tooltip=_ADP_TIP),
                Classifier.Input("classifier", optional=True, tooltip=_CLASSIFIER_TIP),
                BiasFeatures.Input("bias_features", optional=True, tooltip=_FEATURES_TIP),
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
        cls, attribute: str, preset: str, weights: str, adp: Any = None, classifier: Any = None, bias_features: Any = None
    ) -> io.NodeOutput:
        target = target_from_form(attribute, preset, weights, _known(adp, classifier, bias_features))
        return io.NodeOutput(target, "\n".join([str(target), *target.notes]))


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
                io.Combo.Input("preset", options=list(PRESETS), default="weights", tooltip=_PRESET_TIP),
                io.String.Input(
                    "weights",
                    default="yes/short=0.25\nyes/long=0.25\nno/short=0.25\nno/long=0.25",
                    multiline=True,
                    tooltip="CLASS/CLASS=WEIGHT, separated by commas or lines, with the classes in the order of the attributes. Weights "
                    "are divided by their sum. Cells that you leave out share the rest up to 1.",
                ),
                Adp.Input("adp", optional=True, tooltip=_ADP_TIP),
                Classifier.Input("classifier", optional=True, tooltip=_CLASSIFIER_TIP),
                Target.Input(
                    "first",
                    optional=True,
                    tooltip="First of two targets to join as independent. The weights are then not read. It needs 'second'.",
                ),
                Target.Input("second", optional=True, tooltip="Second of the two targets to join, over other attributes."),
                BiasFeatures.Input("bias_features", optional=True, tooltip=_FEATURES_TIP),
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
            target = target_from_form(attributes, preset, weights, _known(adp, classifier, bias_features))
        return io.NodeOutput(target, "\n".join([str(target), *target.notes]))


NODES = [TargetDistribution, JointTarget]
