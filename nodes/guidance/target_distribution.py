"""Target Distribution."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...methods.core.target_text import target_from_form
from ...methods.core.targets import TargetDistribution, product
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ..core.sockets import MAIN, Target, schema
from .target_inputs import adp_input, bias_features_input, classifier_input, known_classes, preset_input, target_output, target_outputs


class TargetDistributionNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTargetDistribution",
            display_name="Target Distribution",
            category=MAIN,
            description="States the target: the share of images that each class of a perceived attribute is to have, or each "
            "combination of the classes of several attributes. Connect it to Distribution Guidance or Bias Feature Steer.",
            search_aliases=[
                "fair", "balance", "debias", "half and half", "diversity", "gender", "women", "same face", "wildcard", "joint target",
                "intersectional",
            ],  # fmt: skip
            inputs=[
                io.String.Input(
                    "attribute",
                    default="eyeglasses",
                    tooltip="Name of the attribute, as in the ADP. The output text of Load ADP lists the names. For a joint target over "
                    "several attributes, write ' x ' or a comma between the names.",
                ),
                preset_input(),
                io.String.Input(
                    "weights",
                    default="yes=0.5, no=0.5",
                    multiline=True,
                    tooltip="Share of every class, such as yes=0.5, no=0.5. You can also write: half and half, 40/40/20, yes 80 no 20, "
                    "1/3. Put names with commas in double quotes. Classes that you leave out share the rest. For a joint target, write "
                    "CLASS/CLASS=WEIGHT for every combination.",
                ),
                adp_input(),
                classifier_input(),
                bias_features_input(),
                Target.Input(
                    "with_target",
                    optional=True,
                    tooltip="A target over other attributes. Both are joined as independent: the share of a combination is the product of "
                    "the two shares.",
                ),
            ],
            outputs=target_outputs(),
        )

    @classmethod
    def execute(
        cls,
        attribute: str,
        preset: str,
        weights: str,
        adp: AdpFile | None = None,
        classifier: HostClassifier | None = None,
        bias_features: BiasFeaturesFile | None = None,
        with_target: TargetDistribution | None = None,
    ) -> io.NodeOutput:
        target = target_from_form(attribute, preset, weights, known_classes(adp, classifier, bias_features))
        return target_output(target if with_target is None else product(target, with_target))


NODES = [TargetDistributionNode]
