"""Target Distribution."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...methods.core.targets import PRESETS, target_from_form
from ..core.sockets import GUIDANCE, Adp, BiasFeatures, Classifier, Target, schema
from .target_inputs import ADP_TIP, CLASSIFIER_TIP, FEATURES_TIP, PRESET_TIP, known_classes


class TargetDistributionNode(io.ComfyNode):
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
                io.Combo.Input("preset", options=list(PRESETS), default="weights", tooltip=PRESET_TIP),
                io.String.Input(
                    "weights",
                    default="yes=0.5, no=0.5",
                    multiline=True,
                    tooltip="One CLASS=WEIGHT per class, separated by commas or lines. Weights are divided by their sum. You can also "
                    "write percentages. Classes that you leave out share the rest up to 1.",
                ),
                Adp.Input("adp", optional=True, tooltip=ADP_TIP),
                Classifier.Input("classifier", optional=True, tooltip=CLASSIFIER_TIP),
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
        cls, attribute: str, preset: str, weights: str, adp: Any = None, classifier: Any = None, bias_features: Any = None
    ) -> io.NodeOutput:
        target = target_from_form(attribute, preset, weights, known_classes(adp, classifier, bias_features))
        return io.NodeOutput(target, "\n".join([str(target), *target.notes]))


NODES = [TargetDistributionNode]
