"""Joint Target."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...methods.core.target_text import target_from_form
from ...methods.core.targets import TargetDistribution, product
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ..core.sockets import MAIN, Target, schema
from .target_inputs import adp_input, bias_features_input, classifier_input, known_classes, preset_input, target_output, target_outputs


class JointTarget(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseJointTarget",
            display_name="Joint Target",
            category=MAIN,
            description=(
                "States a joint target: the share of every combination of two or more perceived attributes. Even if each "
                "attribute is balanced, a combination can be empty; a joint target prevents this. It can also join two targets as "
                "independent."
            ),
            search_aliases=["intersectional", "joint distribution", "balance"],
            inputs=[
                io.String.Input("attributes", default="eyeglasses x hair", tooltip="Names of the attributes with ' x ' between them."),
                preset_input(),
                io.String.Input(
                    "weights",
                    default="yes/short=0.25\nyes/long=0.25\nno/short=0.25\nno/long=0.25",
                    multiline=True,
                    tooltip="CLASS/CLASS=WEIGHT, separated by commas or lines, with the classes in the order of the attributes. Weights "
                    "are divided by their sum. Cells that you leave out share the rest up to 1.",
                ),
                adp_input(),
                classifier_input(),
                Target.Input(
                    "first",
                    optional=True,
                    tooltip="First of two targets to join as independent. The weights are then not read. It needs 'second'.",
                ),
                Target.Input("second", optional=True, tooltip="Second of the two targets to join, over other attributes."),
                bias_features_input(),
            ],
            outputs=target_outputs(),
        )

    @classmethod
    def execute(
        cls,
        attributes: str,
        preset: str,
        weights: str,
        adp: AdpFile | None = None,
        classifier: HostClassifier | None = None,
        first: TargetDistribution | None = None,
        second: TargetDistribution | None = None,
        bias_features: BiasFeaturesFile | None = None,
    ) -> io.NodeOutput:
        if (first is None) != (second is None):
            raise ValueError("Joint Target joins two targets: connect both 'first' and 'second', or neither and write the table.")
        if first is not None:
            target = product(first, second)
        else:
            target = target_from_form(attributes, preset, weights, known_classes(adp, classifier, bias_features))
        return target_output(target)


NODES = [JointTarget]
