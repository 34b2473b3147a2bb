"""Load Features."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.data.feature_sets import FEATURES_PATH, set_fingerprint, set_folder, set_names
from ...methods.data.feature_set import open_feature_set
from ..core.sockets import MAKE, Features, schema


class LoadFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLoadFeatures",
            display_name="Load Features",
            category=MAKE,
            description=(
                f"Opens a feature set from {FEATURES_PATH} and checks that all its parts exist. Use it before Label Features and Train ADP."
            ),
            search_aliases=["feature set", "h-space", "dataset", "train adp"],
            inputs=[
                io.Combo.Input("set_name", options=set_names(), tooltip=f"A feature set in {FEATURES_PATH}. Press R to refresh the list.")
            ],
            outputs=[
                Features.Output("features", display_name="features", tooltip="The feature set, for Label Features and Train ADP."),
                io.String.Output("text", display_name="text", tooltip="How many images the set holds, and how they were recorded."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, set_name: str) -> str:
        return set_fingerprint(set_name)

    @classmethod
    def execute(cls, set_name: str) -> io.NodeOutput:
        features = open_feature_set(set_folder(set_name))
        lines = [f"'{features.name}': {len(features.entries)} images"]
        for key, value in features.meta.items():
            if key == "prompts":
                lines.append(f"prompts: {len(value)}")
            elif key not in ("format", "version") and not isinstance(value, (dict, type(None))):
                lines.append(f"{key.replace('_', ' ')}: {value}")
        return io.NodeOutput(features, "\n".join(lines))


NODES = [LoadFeatures]
