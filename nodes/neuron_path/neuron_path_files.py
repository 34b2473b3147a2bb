"""Save Neuron Path and Load Neuron Path."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...host.core import files as model_files
from ...host.core.files import FileKind
from ...models.neuron_path import NeuronPathFile, load_neuron_path, save_neuron_path
from ..core.sockets import NEURONS, NeuronPaths, schema

NEURON_PATH_FILES = FileKind("equipoise_neuron_paths", "neuron paths", save_neuron_path)
KEY, FOLDER = NEURON_PATH_FILES.key, NEURON_PATH_FILES.folder


class SaveNeuronPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveNeuronPath",
            display_name="Save Neuron Path",
            category=NEURONS,
            description=f"Saves neuron paths to {FOLDER}. Load Neuron Path lists the file. An incomplete file is never left behind.",
            search_aliases=["export", "write", "store", "neuron", "safetensors"],
            is_output_node=True,
            inputs=[
                NeuronPaths.Input("neuron_path", tooltip="The neuron paths to save, from Find Neuron Path, Baseline Paths or Class Path."),
                io.String.Input(
                    "name",
                    default="my_neuron_path",
                    tooltip=f"Name of the file in {FOLDER}, with or without .safetensors. Folders are refused.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="On: replace another file with this name. Off: leave that file as it is and report an error.",
                ),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def execute(cls, neuron_path: NeuronPathFile, name: str, overwrite: bool) -> io.NodeOutput:
        path = NEURON_PATH_FILES.write(neuron_path, name, overwrite)
        return io.NodeOutput(str(path), ui=ui.PreviewText(NEURON_PATH_FILES.saved(path)))


class LoadNeuronPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLoadNeuronPath",
            display_name="Load Neuron Path",
            category=NEURONS,
            description=(
                "Loads neuron paths that Save Neuron Path wrote: the neurons of a vision transformer that together decide "
                "a perceived class. A path belongs to one model. Nodes refuse it with another model."
            ),
            search_aliases=["neuron", "path", "import", "read", "safetensors"],
            inputs=[
                io.Combo.Input("neuron_path_name", options=model_files.choices(KEY), tooltip=f"A safetensors file from {FOLDER}."),
            ],
            outputs=[
                NeuronPaths.Output(
                    "neuron_path",
                    display_name="neuron path",
                    tooltip="For Class Path, Neuron Path Effect, Neuron Gallery and Edit Vision Neurons.",
                ),
                io.String.Output(
                    "text", display_name="text", tooltip="What the file says about itself: attribute, method, model, classes and scores."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, neuron_path_name: str) -> str:
        return model_files.fingerprint(KEY, neuron_path_name)

    @classmethod
    def execute(cls, neuron_path_name: str) -> io.NodeOutput:
        found = load_neuron_path(model_files.resolve(KEY, neuron_path_name))
        return io.NodeOutput(found, found.text())


NODES = [SaveNeuronPath, LoadNeuronPath]
