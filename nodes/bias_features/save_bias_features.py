"""Save Bias Features."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...host.core.files import FileKind
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.bias_features import save_bias_features
from ..core.inputs import file_name_input, overwrite_input
from ..core.sockets import LAB, BiasFeatures, schema

BIAS_FEATURES_FOLDER = "models/equipoise/bias_features"
BIAS_FEATURE_FILES = FileKind("equipoise_bias_features", "bias features", save_bias_features)


class SaveBiasFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveBiasFeatures",
            display_name="Save Bias Features",
            category=LAB,
            description=(
                f"Saves bias features to {BIAS_FEATURES_FOLDER}. "
                "Load Bias Features lists the file. An incomplete file is never left behind."
            ),
            search_aliases=["export", "write", "store", "difflens", "safetensors"],
            is_output_node=True,
            inputs=[
                BiasFeatures.Input(
                    "bias_features",
                    tooltip="The bias features to save, from Find Bias Features, Learn Feature Profiles or Calibrate Bias Features.",
                ),
                file_name_input("my_bias_features", BIAS_FEATURES_FOLDER),
                overwrite_input(),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def execute(cls, bias_features: BiasFeaturesFile, name: str, overwrite: bool) -> io.NodeOutput:
        path = BIAS_FEATURE_FILES.write(bias_features, name, overwrite)
        return io.NodeOutput(str(path), ui=ui.PreviewText(BIAS_FEATURE_FILES.saved_text(path)))


NODES = [SaveBiasFeatures]
