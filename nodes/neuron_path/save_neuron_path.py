"""Save Neuron Path."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...host.core.files import FileKind
from ...models.neuron_path import NeuronPathFile, save_neuron_path
from ..core.inputs import file_name_input, overwrite_input
from ..core.sockets import LAB, NeuronPaths, schema

NEURON_PATH_FILES = FileKind("equipoise_neuron_paths", "neuron paths", save_neuron_path)
KEY, FOLDER = NEURON_PATH_FILES.key, NEURON_PATH_FILES.folder


class SaveNeuronPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveNeuronPath",
            display_name="Save Neuron Path",
            category=LAB,
            description=f"Saves neuron paths to {FOLDER}. Load Neuron Path lists the file. An incomplete file is never left behind.",
            search_aliases=["export", "write", "store", "neuron", "safetensors"],
            is_output_node=True,
            inputs=[
                NeuronPaths.Input("neuron_path", tooltip="The neuron paths to save, from Find Neuron Path, Baseline Paths or Class Path."),
                file_name_input("my_neuron_path", FOLDER),
                overwrite_input(),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def execute(cls, neuron_path: NeuronPathFile, name: str, overwrite: bool) -> io.NodeOutput:
        path = NEURON_PATH_FILES.write(neuron_path, name, overwrite)
        return io.NodeOutput(str(path), ui=ui.PreviewText(NEURON_PATH_FILES.saved_text(path)))


NODES = [SaveNeuronPath]
