"""Save ADP."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...host.core.files import FileKind
from ...models.adp import AdpFile, save_adp
from ..core.inputs import file_name_input, overwrite_input
from ..core.sockets import MAKE, Adp, schema

ADP_FOLDER = "models/equipoise/adp"
ADP_FILES = FileKind("equipoise_adp", "an ADP", save_adp)


class SaveADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveADP",
            display_name="Save ADP",
            category=MAKE,
            description=f"Saves an ADP with its moves to {ADP_FOLDER}. Load ADP lists the file. An incomplete file is never left behind.",
            search_aliases=["export", "write", "store", "predictor", "safetensors"],
            is_output_node=True,
            inputs=[
                Adp.Input("adp", tooltip="The ADP to save, from Train ADP or Calibrate ADP."),
                file_name_input("my_adp", ADP_FOLDER),
                overwrite_input(),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def execute(cls, adp: AdpFile, name: str, overwrite: bool) -> io.NodeOutput:
        path = ADP_FILES.write(adp, name, overwrite)
        return io.NodeOutput(str(path), ui=ui.PreviewText(ADP_FILES.saved_text(path)))


NODES = [SaveADP]
