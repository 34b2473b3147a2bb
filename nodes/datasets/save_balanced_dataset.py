"""Save Balanced Dataset."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ...host.datasets.datasets import DATASETS_PATH, SaveSettings, dataset_folder, read_labels, save_images
from ...methods.core.targets import TargetDistribution
from ...methods.datasets.image_folder import GENERATED, ORIGINS
from ...methods.datasets.image_folder_writer import parse_splits
from ..core.inputs import names_of
from ..core.queued import queued_graph
from ..core.sockets import DATA, Classifier, Dataset, Labels, Target, schema


class SaveBalancedDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveBalancedDataset",
            display_name="Save Balanced Dataset",
            category=DATA,
            description=(
                "Saves images and their perceived labels as a Hugging Face imagefolder (a folder per split with "
                "metadata.jsonl) and a CSV. It adds to an existing data set and never overwrites images. With a target, it keeps "
                "only as many images of each class as the target asks for."
            ),
            search_aliases=["imagefolder", "export", "hugging face", "dataset", "metadata.jsonl", "csv", "training data", "fair"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Images to save. Their labels are perceived in them."),
                io.String.Input(
                    "name",
                    default="my_dataset",
                    tooltip=f"Name of the data set, a folder in {DATASETS_PATH}. If it exists with the same attributes, the images are "
                    "added to it.",
                ),
                io.String.Input(
                    "split",
                    default="train",
                    tooltip="Split for the images: 'train', 'validation' or 'test', or shares such as train=0.8, test=0.2. Shares "
                    "apply to each combination of labels. An image is never in two splits.",
                ),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to label, separated by commas. Empty: all attributes of the classifier or the labels.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="Number of images that the data set is to hold. With a target, each class fills up to its share. 0 means "
                    "no limit: with a target, the data set then follows the target at any time, as far as its rarest class allows.",
                ),
                io.String.Input(
                    "class_folder", default="", tooltip="An attribute whose classes become folders within the splits. Empty: none."
                ),
                io.Float.Input(
                    "sure",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Minimum label probability. An image is left out if one of its labels is less sure. 0 keeps all images. "
                    "High values keep only easy images.",
                ),
                io.Combo.Input(
                    "origin",
                    options=list(ORIGINS),
                    default=GENERATED,
                    tooltip="What the images are: 'real' or 'generated'. Train Attribute Classifier can weight the two differently.",
                ),
                Classifier.Input(
                    "classifier",
                    optional=True,
                    tooltip="Reads the labels from the images, from Load Attribute Classifier. Connect either this or labels.",
                ),
                Labels.Input(
                    "labels",
                    optional=True,
                    tooltip="Labels of these images, in the same order, from one of the Label Features nodes. Connect either this or "
                    "classifier.",
                ),
                Target.Input(
                    "target", optional=True, tooltip="Shares that the data set is to have, from Target Distribution."
                ),
            ],
            outputs=[
                Dataset.Output(
                    "dataset",
                    display_name="dataset",
                    tooltip="The complete data set, including images saved before. For Train Attribute Classifier.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="What was saved, what was left out, and what the data set holds now."
                ),
                io.String.Output("path", display_name="path", tooltip="The folder of the data set."),
            ],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, name: str, split: str) -> bool | str:
        try:
            parse_splits(split)
            dataset_folder(name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, images: torch.Tensor, name: str, attribute: str, target: TargetDistribution | None = None, **widgets: Any
    ) -> io.NodeOutput:
        wanted = names_of(attribute)
        if wanted and target is not None:  # the target's attributes need labels
            wanted = list(dict.fromkeys([*wanted, *target.attributes]))
        attributes, probabilities, source = read_labels(images, widgets.get("classifier"), widgets.get("labels"), wanted)
        settings = SaveSettings(
            widgets["split"],
            target,
            widgets["size"],
            widgets["class_folder"].strip(),
            widgets["sure"],
            widgets["origin"],
            queued_graph(cls),
        )
        dataset, saved, notes = save_images(images, name, attributes, probabilities, source, settings)
        if dataset is None:
            raise ValueError(f"nothing could be saved yet: {'; '.join([saved.text(), *notes])}. Make more images, or lower 'sure'.")
        report = "\n".join([saved.text(), *notes, dataset.text(), f"in {DATASETS_PATH}/{dataset.name}"])
        return io.NodeOutput(dataset, report, str(dataset.root), ui=ui.PreviewText(report))


NODES = [SaveBalancedDataset]
