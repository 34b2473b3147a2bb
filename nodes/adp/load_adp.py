"""Load ADP."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...models.adp import load_adp
from ..core.inputs import model_file_input
from ..core.sockets import MAIN, Adp, schema

ADP_KEY = "equipoise_adp"
DEFAULT_FILE = "portraits.safetensors"


class LoadADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files.choices(ADP_KEY)
        return schema(
            node_id="EquipoiseLoadADP",
            display_name="Load ADP",
            category=MAIN,
            description=(
                "Loads an ADP (attribute distribution predictor; Balancing Act, CVPR 2024): a small network that reads "
                "from the U-Net what an image will show, while the image is sampled. The file also holds the calibrated moves "
                "towards each class. It belongs to one diffusion model."
            ),
            search_aliases=["attribute distribution predictor", "fairness", "debias", "diversity", "gender", "women"],
            inputs=[model_file_input("adp_name", files, DEFAULT_FILE, model_files.folder_hint(ADP_KEY))],
            outputs=[
                Adp.Output("adp", display_name="ADP", tooltip="For the guidance nodes. The target nodes take the class names from it."),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="What the file says about itself: its model, attributes, classes and accuracy. Show it with Preview Any.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, adp_name: str | None) -> bool | str:
        return model_files.checked_choice(ADP_KEY, adp_name)

    @classmethod
    def fingerprint_inputs(cls, adp_name: str) -> str:
        return model_files.fingerprint(ADP_KEY, adp_name)

    @classmethod
    def execute(cls, adp_name: str) -> io.NodeOutput:
        adp = load_adp(model_files.resolve(ADP_KEY, adp_name))
        return io.NodeOutput(adp, adp.text())


NODES = [LoadADP]
