"""Merge Labels."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...methods.labels.label_text import parse_classes
from ...methods.labels.labels import LabelSet, merged
from ..core.sockets import MAKE, Labels, schema

GROUPS = "age: young=0-2|3-9|10-19, middle=20-29|30-39, old=..."


class MergeLabels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseMergeLabels",
            display_name="Merge Labels",
            category=MAKE,
            description=(
                "Merges classes of an attribute, for example nine age groups into three. The probability of a group is the "
                "sum of the probabilities of its classes. Attributes that you do not name stay as they are. Classes describe what "
                "is perceived in a picture."
            ),
            search_aliases=["group classes", "rename classes", "fairface", "attribute"],
            inputs=[
                Labels.Input("labels", tooltip="Labels of a feature set, from one of the Label Features With ... or From ... nodes."),
                io.String.Input(
                    "groups",
                    default=GROUPS,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="One line per attribute, as attribute: group=class|class, group=class. Three dots stand for all remaining "
                    "classes. Each class belongs to one group.",
                ),
            ],
            outputs=[
                Labels.Output("labelled", display_name="labels", tooltip="The labels with the groups as classes."),
                io.String.Output(
                    "report", display_name="report", tooltip="How many images each group has, and the share of unsure images."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, groups: str) -> bool | str:
        try:
            parse_classes(groups or GROUPS)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, labels: LabelSet, groups: str = GROUPS) -> io.NodeOutput:
        new_labels = merged(labels, parse_classes(groups))
        return io.NodeOutput(new_labels, new_labels.lines(), ui=ui.PreviewText(new_labels.lines()))


NODES = [MergeLabels]
