"""Save Balanced Dataset and Load Dataset."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...host.data.datasets import (
    PLACE,
    SaveSettings,
    dataset_fingerprint,
    dataset_folder,
    dataset_names,
    find_dataset,
    read_labels,
    save_images,
)
from ...host.labels.classifier import HostClassifier
from ...methods.data.image_folder import GENERATED, ORIGINS, open_image_folder
from ...methods.data.image_folder_writer import parse_splits
from ...methods.labels.labels import LabelSet
from ..core.shared_inputs import names_of
from ..core.sockets import DATA, Classifier, Dataset, Labels, Target, schema


class SaveBalancedDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveBalancedDataset",
            display_name="Save Balanced Dataset",
            category=DATA,
            description=(
                "Saves images with their labels as a Hugging Face imagefolder (a folder per split with metadata.jsonl) and a CSV. Adds to "
                "what is there, never overwrites, and with a target keeps only as many images of every class as it asks for."
            ),
            search_aliases=["imagefolder", "export", "hugging face", "dataset", "metadata.jsonl", "csv", "training data", "fair"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The images to save; their labels are perceived in them."),
                io.String.Input(
                    "name", default="my_dataset", tooltip=f"Name of the data set, a folder in {PLACE}. One that is there grows."
                ),
                io.String.Input(
                    "split",
                    default="train",
                    tooltip="'train', 'validation' or 'test', or shares such as train=0.8, test=0.2, by which every combination of labels "
                    "is divided alike. An image is in one split only.",
                ),
                io.String.Input(
                    "attribute", default="", tooltip="Attributes to label, separated by commas. Empty: all that the labels have."
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="Images that the set is to hold: with a target every class is filled up to its share of it. 0 = no limit; with "
                    "a target the set then follows it at any time, as far as its rarest class goes.",
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
                    tooltip="Images whose least sure label has a lower probability are left out. 0 = keep all; high values keep easy "
                    "images only.",
                ),
                io.Combo.Input(
                    "origin", options=list(ORIGINS), default=GENERATED, tooltip="What the images are; trainings can weigh the two apart."
                ),
                Classifier.Input(
                    "classifier", optional=True, tooltip="Reads the labels, from Load Attribute Classifier. Or connect labels."
                ),
                Labels.Input("labels", optional=True, tooltip="Instead of a classifier: labels of these images, in their order."),
                Target.Input("target", optional=True, tooltip="Shares that the set is to have, from Target Distribution or Joint Target."),
            ],
            outputs=[
                Dataset.Output("dataset", display_name="dataset", tooltip="The whole set, for Train Attribute Classifier."),
                io.String.Output("report", display_name="report", tooltip="What was saved and left out, and what the set holds now."),
                io.String.Output("path", display_name="path", tooltip="The folder of the set."),
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
        cls,
        images: torch.Tensor,
        name: str,
        split: str,
        attribute: str,
        size: int,
        class_folder: str,
        sure: float,
        origin: str,
        classifier: HostClassifier | None = None,
        labels: LabelSet | None = None,
        target: Any = None,
    ) -> io.NodeOutput:
        wanted = names_of(attribute)
        if wanted and target is not None:  # what the target goes by has to be labelled
            wanted = list(dict.fromkeys([*wanted, *target.attributes]))
        attributes, probabilities, source = read_labels(images, classifier, labels, wanted)
        graph = getattr(getattr(cls, "hidden", None), "prompt", None)
        settings = SaveSettings(split, target, size, class_folder.strip(), sure, origin, graph)
        found, saved, notes = save_images(images, name, attributes, probabilities, source, settings)
        if found is None:
            raise ValueError(f"nothing could be saved yet: {'; '.join([saved.text(), *notes])}. Make more images, or lower 'sure'.")
        report = "\n".join([saved.text(), *notes, found.text(), f"in {PLACE}/{found.name}"])
        return io.NodeOutput(found, report, str(found.root), ui=ui.PreviewText(report))


class LoadDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLoadDataset",
            display_name="Load Dataset",
            category=DATA,
            description=(
                "Opens labelled images: a set of Save Balanced Dataset, or a folder in ComfyUI's input folder, as a Hugging Face "
                "imagefolder with metadata or as a folder per class. Goes before Train Attribute Classifier and Classifier Fairness."
            ),
            search_aliases=["imagefolder", "hugging face", "dataset", "training data", "metadata.jsonl"],
            inputs=[
                io.Combo.Input(
                    "dataset_name",
                    options=dataset_names(),
                    tooltip=f"A set in {PLACE}, or input/NAME, a folder in the input folder. New ones show after a refresh (R).",
                ),
                io.String.Input(
                    "attribute", default="", tooltip="Attributes to take from it, separated by commas. Empty: all that it labels."
                ),
            ],
            outputs=[
                Dataset.Output("dataset", display_name="dataset", tooltip="For Train Attribute Classifier and Classifier Fairness."),
                io.String.Output("text", display_name="text", tooltip="How many images of every split, origin and class it holds."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, dataset_name: str, attribute: str) -> str:
        return json.dumps([dataset_fingerprint(dataset_name), attribute])

    @classmethod
    def execute(cls, dataset_name: str, attribute: str = "") -> io.NodeOutput:
        found = open_image_folder(find_dataset(dataset_name)).only(names_of(attribute))
        return io.NodeOutput(found, found.text(), ui=ui.PreviewText(found.text()))


NODES = [SaveBalancedDataset, LoadDataset]
