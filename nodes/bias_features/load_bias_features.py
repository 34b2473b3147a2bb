"""Load Bias Features."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...models.bias_features import load_bias_features
from ..core.inputs import model_file_input
from ..core.sockets import LAB, BiasFeatures, schema

BIAS_FEATURES_KEY = "equipoise_bias_features"
DEFAULT_FILE = "portraits.safetensors"


class LoadBiasFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files.choices(BIAS_FEATURES_KEY)
        return schema(
            node_id="EquipoiseLoadBiasFeatures",
            display_name="Load Bias Features",
            category=LAB,
            description=(
                "Loads bias features (DiffLens, CVPR 2025): the features of a sparse autoencoder that carry a perceived "
                "attribute, with their scores, and with profiles that say where, at which noise levels and by how much each is "
                "turned to steer an image."
            ),
            search_aliases=["difflens", "sparse autoencoder", "attribution", "steer", "debias", "interpretability"],
            inputs=[
                model_file_input(
                    "bias_features_name",
                    files,
                    DEFAULT_FILE,
                    model_files.folder_hint(BIAS_FEATURES_KEY),
                    " The file belongs to one autoencoder.",
                )
            ],
            outputs=[
                BiasFeatures.Output(
                    "bias_features",
                    display_name="bias features",
                    tooltip="For Bias Feature Steer, Steer Sweep and Feature Atlas. The target nodes take the class names from it.",
                ),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="What the file says about itself: its model, site, attributes, classes, features and calibration. Show it "
                    "with Preview Any.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, bias_features_name: str | None) -> bool | str:
        return model_files.checked_choice(BIAS_FEATURES_KEY, bias_features_name)

    @classmethod
    def fingerprint_inputs(cls, bias_features_name: str) -> str:
        return model_files.fingerprint(BIAS_FEATURES_KEY, bias_features_name)

    @classmethod
    def execute(cls, bias_features_name: str) -> io.NodeOutput:
        bias = load_bias_features(model_files.resolve(BIAS_FEATURES_KEY, bias_features_name))
        return io.NodeOutput(bias, bias.text())


NODES = [LoadBiasFeatures]
