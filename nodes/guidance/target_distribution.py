"""Target Distribution."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...methods.core.target_text import target_from_form
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ..core.sockets import MAIN, schema
from .target_inputs import adp_input, bias_features_input, classifier_input, known_classes, preset_input, target_output, target_outputs


class TargetDistributionNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTargetDistribution",
            display_name="Target Distribution",
            category=MAIN,
            description="States the target: the share of images that each class of one perceived attribute is to have. Connect it "
            "to Distribution Guidance or Bias Feature Steer.",
            search_aliases=["fair", "balance", "debias", "share", "half and half", "diversity", "gender", "women"],
            inputs=[
                io.String.Input(
                    "attribute",
                    default="eyeglasses",
                    tooltip="Name of the attribute, as in the ADP. The output text of Load ADP lists the names.",
                ),
                preset_input(),
                io.String.Input(
                    "weights",
                    default="yes=0.5, no=0.5",
                    multiline=True,
                    tooltip="Share of every class, such as yes=0.5, no=0.5. You can also write: half and half, 40/40/20, yes 80 no 20, "
                    "1/3. Put names with commas in double quotes. Classes that you leave out share the rest.",
                ),
                adp_input(),
                classifier_input(),
                bias_features_input(),
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
    ) -> io.NodeOutput:
        target = target_from_form(attribute, preset, weights, known_classes(adp, classifier, bias_features))
        return target_output(target)


NODES = [TargetDistributionNode]
