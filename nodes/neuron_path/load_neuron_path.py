"""Load Neuron Path."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...models.neuron_path import load_neuron_path
from ..core.sockets import LAB, NeuronPaths, schema
from .save_neuron_path import FOLDER, KEY


class LoadNeuronPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLoadNeuronPath",
            display_name="Load Neuron Path",
            category=LAB,
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
    def validate_inputs(cls, neuron_path_name: str | None) -> bool | str:
        return model_files.checked_choice(KEY, neuron_path_name)

    @classmethod
    def fingerprint_inputs(cls, neuron_path_name: str) -> str:
        return model_files.fingerprint(KEY, neuron_path_name)

    @classmethod
    def execute(cls, neuron_path_name: str) -> io.NodeOutput:
        paths = load_neuron_path(model_files.resolve(KEY, neuron_path_name))
        return io.NodeOutput(paths, paths.text())


NODES = [LoadNeuronPath]
