"""Label Features From CSV."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.labels.labelling import label_file, label_file_fingerprint
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.label_text import parse_classes
from ...methods.labels.labels import LabelSet, for_entries, read_csv, read_csv_as
from ..core.sockets import MAKE, schema
from .source_inputs import (
    PERCEIVED,
    features_input,
    first_problem,
    label_output,
    label_outputs,
    labels_input,
)


class LabelFeaturesFromCSV(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesFromCSV",
            display_name="Label Features From CSV",
            category=MAKE,
            description=(
                "Labels the pictures of a feature set from a table of file names and labels. The header is file,ATTRIBUTE with "
                "class names, or file,ATTRIBUTE:CLASS,... with probabilities. " + PERCEIVED
            ),
            search_aliases=["annotate", "table", "spreadsheet", "annotations", "attribute"],
            inputs=[
                features_input(),
                io.String.Input(
                    "file_name",
                    default="labels.csv",
                    tooltip="A CSV file in ComfyUI's input folder, or the table of a feature set as SET/labels.csv. UTF-8, with commas, "
                    "semicolons or tabs.",
                ),
                io.String.Input(
                    "classes",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Empty: all attributes and classes of the file. Otherwise one attribute per line, as attribute: class, "
                    "class. Other classes are refused. class=a|b merges names of the file.",
                ),
                io.Boolean.Input(
                    "ignore_other_images",
                    default=False,
                    tooltip="What to do with rows for pictures that are not in the set. Off: stop and name the first. On: leave them out.",
                ),
                labels_input(),
            ],
            outputs=label_outputs(),
        )

    @classmethod
    def validate_inputs(cls, classes: str) -> bool | str:
        return first_problem(lambda: parse_classes(classes)) if classes and classes.strip() else True

    @classmethod
    def fingerprint_inputs(cls, file_name: str | None = None, **_: Any) -> str:
        return label_file_fingerprint(file_name or "")

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        file_name: str = "labels.csv",
        classes: str = "",
        ignore_other_images: bool = False,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        path = label_file(file_name)
        table = read_csv_as(path, parse_classes(classes)) if classes.strip() else read_csv(path)
        rows = for_entries(table, features.entries, every_class=False, ignore_others=ignore_other_images)
        new_labels = LabelSet(dict(table.attributes), tuple(e.file for e in features.entries), rows, dict(table.sources))
        return label_output(labels, new_labels)


NODES = [LabelFeaturesFromCSV]
