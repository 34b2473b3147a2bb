"""Load Dataset."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from ...host.datasets.datasets import DATASETS_PATH, dataset_fingerprint, dataset_names, find_dataset
from ...methods.datasets.image_folder import open_image_folder
from ..core.inputs import names_of
from ..core.sockets import DATA, Dataset, schema


class LoadDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLoadDataset",
            display_name="Load Dataset",
            category=DATA,
            description=(
                "Opens labelled images: a data set from Save Balanced Dataset, or a folder in ComfyUI's input folder. It "
                "reads a Hugging Face imagefolder with metadata, or a folder per class. Use it before Train Attribute Classifier "
                "and Classifier Fairness."
            ),
            search_aliases=["imagefolder", "hugging face", "dataset", "training data", "metadata.jsonl"],
            inputs=[
                io.Combo.Input(
                    "dataset_name",
                    options=dataset_names(),
                    tooltip=f"A data set in {DATASETS_PATH}, or input/NAME for a folder in ComfyUI's input folder. Press R to refresh the "
                    "list.",
                ),
                io.String.Input(
                    "attribute", default="", tooltip="Attributes to load, separated by commas. Empty: all attributes of the data set."
                ),
            ],
            outputs=[
                Dataset.Output("dataset", display_name="dataset", tooltip="For Train Attribute Classifier and Classifier Fairness."),
                io.String.Output("text", display_name="text", tooltip="How many images there are for each split, origin and class."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, dataset_name: str, attribute: str) -> str:
        return json.dumps([dataset_fingerprint(dataset_name), attribute])

    @classmethod
    def execute(cls, dataset_name: str, attribute: str = "") -> io.NodeOutput:
        dataset = open_image_folder(find_dataset(dataset_name)).only(names_of(attribute))
        return io.NodeOutput(dataset, dataset.text(), ui=ui.PreviewText(dataset.text()))


NODES = [LoadDataset]
