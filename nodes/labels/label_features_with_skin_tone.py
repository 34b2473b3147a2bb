"""Label Features With Skin Tone."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...host.labels.labelling import skin_tone_source
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.label_text import parse_classes
from ...methods.labels.labels import LabelSet
from ...methods.labels.regions import parse_box
from ..core.sockets import MAKE, schema
from .source_inputs import (
    features_input,
    first_problem,
    label_output,
    label_outputs,
    labels_in_region,
    labels_input,
    region_inputs,
)


class LabelFeaturesWithSkinTone(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesWithSkinTone",
            display_name="Label Features With Skin Tone",
            category=MAKE,
            description=(
                "Labels the pictures of a feature set by perceived skin tone, without a classifier: the individual typology "
                "angle in Lab (Chardon et al. 1991), in six classes, over a mask or an ellipse in the middle. Light and white balance "
                "change the angle."
            ),
            search_aliases=["ITA", "individual typology angle", "lab", "annotate", "attribute"],
            inputs=[
                features_input(),
                io.String.Input("attribute", default="skin_tone", tooltip="Name of the attribute in labels, ADP files and targets."),
                io.Float.Input(
                    "softness",
                    default=0.5,
                    min=0.0,
                    max=4.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Width of the borders between classes, in units of the spread between the skin pixels of a picture, at "
                    "least 1 degree. 0 gives each picture exactly one class.",
                ),
                *region_inputs(),
                labels_input(),
            ],
            outputs=label_outputs(),
        )

    @classmethod
    def validate_inputs(cls, attribute: str, crop: str) -> bool | str:
        return first_problem(lambda: parse_classes(f"{(attribute or 'name').strip()}: a, b"), lambda: parse_box(crop or ""))

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        attribute: str = "skin_tone",
        softness: float = 0.5,
        crop: str = "",
        mask: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        (name,) = parse_classes(f"{attribute.strip()}: a, b")
        new_labels, other = labels_in_region(features, skin_tone_source(name, softness), crop, mask)
        angle, read = other["ita"][:, 0], other["ita"][:, 1] > 0.5
        if not read.any():
            return label_output(labels, new_labels, "no picture could be read: too little under the mask has a colour that skin can have")
        seen, unread = angle[read], int((~read).sum())
        note = f"ITA from {seen.min():.0f} to {seen.max():.0f} degrees, median {seen.median():.0f}"
        if unread:
            note += f"; {unread} pictures were not read (too little skin colour under the mask) and have equal probabilities"
        return label_output(labels, new_labels, note)


NODES = [LabelFeaturesWithSkinTone]
