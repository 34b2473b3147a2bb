"""Load Attribute Classifier."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...host.labels.classifier import KEY, classifier_choices, classifier_fingerprint, load_host_classifier
from ..core.sockets import MAIN, Classifier, schema

DEFAULT_FILE = "portraits_judge.safetensors"


class LoadAttributeClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        choices = classifier_choices()
        return schema(
            node_id="EquipoiseLoadAttributeClassifier",
            display_name="Load Attribute Classifier",
            category=MAIN,
            description=(
                "Loads a classifier that reads perceived attributes from images: a file of this pack, or a folder with a "
                "transformers image classifier (config.json and safetensors). It reads how something looks, not who a person is, "
                "and it makes errors."
            ),
            search_aliases=["attribute", "classifier", "judge", "labeller", "fairface", "vit", "image classification", "gender", "women"],
            inputs=[
                io.Combo.Input(
                    "classifier_name",
                    options=choices,
                    default=DEFAULT_FILE if DEFAULT_FILE in choices else None,
                    tooltip=f"A safetensors file or a folder from {model_files.folder_hint(KEY)}, or one that ships with the pack. To "
                    "measure results, choose a classifier that was not used to train the ADP. The one that labelled the training data "
                    "gives results that are too good.",
                )
            ],
            outputs=[
                Classifier.Output(
                    "classifier",
                    display_name="classifier",
                    tooltip="For Attribute Histogram, Distribution Guidance KSampler and the target nodes.",
                ),
                io.String.Output("text", display_name="text", tooltip="The attributes that the classifier reads, with their classes."),
            ],
        )

    @classmethod
    def validate_inputs(cls, classifier_name: str | None) -> bool | str:
        known = classifier_name is None or classifier_name in classifier_choices()
        return known or model_files.missing_text(KEY, classifier_name)

    @classmethod
    def fingerprint_inputs(cls, classifier_name: str) -> str:
        return classifier_fingerprint(classifier_name)

    @classmethod
    def execute(cls, classifier_name: str) -> io.NodeOutput:
        classifier = load_host_classifier(classifier_name)
        return io.NodeOutput(classifier, "\n".join(f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items()))


NODES = [LoadAttributeClassifier]
