"""Label Features."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...charts.labels.labels import class_sheet, label_chart, same_size
from ...host.labels.labelling import save_labels, thumbnails
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet, for_entries
from ..core.inputs import names_of
from ..core.sockets import MAKE, Features, Labels, schema
from ..core.ui import as_image, shown


class LabelFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeatures",
            display_name="Label Features",
            category=MAKE,
            description=(
                "Shows the labels of a feature set before you train an ADP on them: how often each class occurs, the share of "
                "unsure pictures, and sheets with the surest and the least sure pictures of every class. Writes labels.csv into the set. "
                "Classes describe what is perceived in a picture."
            ),
            search_aliases=["audit", "annotate", "label distribution", "contact sheet", "attribute"],
            is_output_node=True,
            inputs=[
                Features.Input("features", tooltip="The feature set that was labelled."),
                Labels.Input("labels", tooltip="Labels from one of the Label Features With ... or From ... nodes, or from Merge Labels."),
                io.String.Input("attribute", default="", tooltip="Attributes to show and keep, separated by commas. Empty: all."),
                io.Int.Input(
                    "images_per_class",
                    default=24,
                    min=2,
                    max=96,
                    step=2,
                    tooltip="Number of pictures on the sheet of each class. Half are the surest, half the least sure.",
                ),
            ],
            outputs=[
                Labels.Output(
                    "labelled", display_name="labels", tooltip="The labels that are shown, in the order of the set. For Train ADP."
                ),
                io.Image.Output("chart", display_name="chart", tooltip="Shares of the classes with their unsure part, 960 pixels wide."),
                io.Image.Output(
                    "sheets", display_name="sheets", tooltip="One picture per class, with the surest pictures above the least sure ones."
                ),
                io.String.Output("report", display_name="report", tooltip="The same in words, with classes without an example."),
            ],
        )

    @classmethod
    def execute(cls, features: FeatureSet, labels: LabelSet, attribute: str = "", images_per_class: int = 24) -> io.NodeOutput:
        wanted = labels.only(names_of(attribute) or list(labels.attributes))
        tables = for_entries(wanted, features.entries, every_class=False)
        chosen = LabelSet(dict(wanted.attributes), tuple(e.file for e in features.entries), tables, dict(wanted.sources))
        path = save_labels(features, chosen)
        chart = as_image(label_chart(chosen.probabilities, chosen.attributes))
        sheets = [
            class_sheet(a, name, chosen.probabilities[a], i, images_per_class, lambda indices: thumbnails(features, indices))
            for a, classes in chosen.attributes.items()
            for i, name in enumerate(classes)
        ]
        lines = [chosen.lines()]
        for a, classes in chosen.attributes.items():
            empty = [c for c, n in zip(classes, chosen.counts(a), strict=True) if not n]
            lines += [f"{a}: no image shows {', '.join(empty)}, which training needs: record more, or merge classes"] if empty else []
        lines.append(f"written to {features.folder.name}/{path.name}")
        report = "\n".join(lines)
        return io.NodeOutput(chosen, chart, torch.from_numpy(same_size(sheets)).float() / 255, report, ui=shown(cls, chart, report))


NODES = [LabelFeatures]
