"""Load ADP."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import folders
from ...models.adp import load_adp
from ..core.sockets import LOADERS, Adp, schema

FOLDER = "equipoise_adp"
DEFAULT_FILE = "portraits.safetensors"


class LoadADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folders.choices(FOLDER)
        return schema(
            node_id="EquipoiseLoadADP",
            display_name="Load ADP",
            category=LOADERS,
            description=(
                "Loads an Attribute Distribution Predictor (Balancing Act, CVPR 2024): a small network that reads from the U-Net's "
                "middle block what an "
                "image will show, with the calibrated moves towards each class. It belongs to one diffusion model."
            ),
            search_aliases=["attribute distribution predictor", "fairness", "debias"],
            inputs=[
                io.Combo.Input(
                    "adp_name",
                    options=files,
                    default=DEFAULT_FILE if DEFAULT_FILE in files else None,
                    tooltip=f"A safetensors file from {folders.folder_hint(FOLDER)}, or one that ships with the pack.",
                )
            ],
            outputs=[
                Adp.Output(
                    "adp", display_name="ADP", tooltip="For Distribution Guidance; also tells target nodes which classes there are."
                ),
                io.String.Output(
                    "text", display_name="text", tooltip="What the file says of itself: model, attributes, classes, accuracy."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adp_name: str) -> str:
        return folders.fingerprint(FOLDER, adp_name)

    @classmethod
    def execute(cls, adp_name: str) -> io.NodeOutput:
        adp = load_adp(folders.resolve(FOLDER, adp_name))
        return io.NodeOutput(adp, adp.text())


NODES = [LoadADP]
