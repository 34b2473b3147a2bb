"""Label Features With Classifier."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...host.labels.labelling import classifier_source
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...methods.labels.regions import parse_box
from ..core.inputs import names_of
from ..core.sockets import MAKE, Classifier, schema
from .source_inputs import (
    PERCEIVED,
    features_input,
    first_problem,
    label_output,
    label_outputs,
    labels_in_region,
    labels_input,
    region_inputs,
)


class LabelFeaturesWithClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesWithClassifier",
            display_name="Label Features With Classifier",
            category=MAKE,
            description=(
                "Labels the pictures of a feature set with a classifier: a file of this pack, or a folder with a transformers "
                "image classifier. Readings are kept in the set, so each picture is read once. " + PERCEIVED
            ),
            search_aliases=["annotate", "hugging face", "transformers", "vit", "fairface", "attribute"],
            inputs=[
                features_input(),
                Classifier.Input(
                    "classifier",
                    tooltip="Classifier that gives the labels, from Load Attribute Classifier. Measure results later with another one.",
                ),
                io.String.Input(
                    "attributes",
                    default="",
                    tooltip="Attributes to label, separated by commas. Empty: all that the classifier reads.",
                ),
                *region_inputs(),
                labels_input(),
            ],
            outputs=label_outputs(),
        )

    @classmethod
    def validate_inputs(cls, crop: str) -> bool | str:
        return first_problem(lambda: parse_box(crop or ""))

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        classifier: HostClassifier,
        attributes: str = "",
        crop: str = "",
        mask: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        source = classifier_source(classifier, names_of(attributes))
        new_labels, _ = labels_in_region(features, source, crop, mask)
        return label_output(labels, new_labels)


NODES = [LabelFeaturesWithClassifier]
