"""Classifier Fairness."""

from __future__ import annotations

import json

import torch
from comfy_api.latest import io

from ...charts.datasets.classifier_fairness import fairness_chart, fairness_text
from ...host.datasets.classifier_fairness import fairness_on_dataset, fairness_on_images
from ...host.labels.classifier import HostClassifier
from ...methods.datasets.image_folder import SPLITS, TEST, ImageFolder
from ...methods.labels.labels import LabelSet
from ..core.sockets import MEASURE, Classifier, Dataset, Labels, schema
from ..core.ui import as_image, shown


class ClassifierFairnessNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseClassifierFairness",
            display_name="Classifier Fairness",
            category=MEASURE,
            description=(
                "Measures whether a classifier reads an attribute as well in one perceived group as in another: accuracy by "
                "group, the worst group, and the differences in demographic parity and equalised odds (as in fairlearn), with intervals "
                "and the differences that chance would give."
            ),
            search_aliases=["equalized odds", "equalised odds", "demographic parity", "fairlearn", "group accuracy", "audit", "bias"],
            is_output_node=True,
            inputs=[
                Classifier.Input(
                    "classifier", tooltip="Classifier to measure, from Train Attribute Classifier or Load Attribute Classifier."
                ),
                io.String.Input(
                    "attribute", default="eyeglasses", tooltip="Attribute that the classifier reads and that the images have labels for."
                ),
                io.String.Input(
                    "group",
                    default="skin_tone",
                    tooltip="Labelled attribute whose classes are the groups. The classifier does not need to read it.",
                ),
                io.Combo.Input(
                    "split",
                    options=[*SPLITS, "all"],
                    default=TEST,
                    tooltip="Images of the data set to use. Only 'test' was not used in any training.",
                ),
                Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="Labelled images, from Load Dataset or Save Balanced Dataset. Connect this, or images and labels.",
                ),
                io.Image.Input("images", optional=True, tooltip="Images to use instead of a data set. They need labels."),
                Labels.Input("labels", optional=True, tooltip="Labels of these images, in the same order, with both attributes."),
            ],
            outputs=[
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="Accuracy, true positive rate and false positive rate of every group, with intervals.",
                ),
                io.String.Output("report", display_name="report", tooltip="The same in words, with warnings."),
                io.Float.Output(
                    "odds",
                    display_name="equalised odds difference",
                    tooltip="The largest difference between groups in true or false positive rates. 0 means that all groups are read "
                    "equally well. -1 means that nothing can be compared.",
                ),
                io.String.Output("json", display_name="JSON", tooltip="All figures: rates, differences, intervals and notes."),
            ],
        )

    @classmethod
    def execute(
        cls,
        classifier: HostClassifier,
        attribute: str,
        group: str,
        split: str,
        dataset: ImageFolder | None = None,
        images: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        attribute, group = attribute.strip(), group.strip()
        if attribute == group or not attribute or not group:
            raise ValueError(f"attribute and group are two different names; met '{attribute}' and '{group}'.")
        if (images is None) != (labels is None) or (dataset is None) == (images is None):
            raise ValueError("connect either a data set, or images together with their labels.")
        if dataset is not None:
            fairness, notes = fairness_on_dataset(classifier, dataset.of_split(split), attribute, group)
        else:
            fairness, notes = fairness_on_images(classifier, images, labels, attribute, group)
        report = "\n".join([fairness_text(fairness, attribute, group), *(f"note: {n}" for n in notes)])
        chart = as_image(fairness_chart(fairness, attribute, group, classifier.name))
        odds = fairness.equalised_odds_difference.value
        figures = {"classifier": classifier.name, "attribute": attribute, "group": group, **fairness.to_dict()}
        figures["notes"] = [*figures["notes"], *notes]
        text = json.dumps(figures, allow_nan=False)
        return io.NodeOutput(chart, report, -1.0 if odds is None else odds, text, ui=shown(cls, chart, report))


NODES = [ClassifierFairnessNode]
