"""Train Attribute Classifier."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...charts.core.curves import training_curves
from ...host.datasets.train_classifier import train_and_save_classifier
from ...methods.datasets.augment import AUGMENTATIONS, QUALITY
from ...methods.datasets.classifier_training import ARCHITECTURES, CNN, SIZES, ClassifierSettings
from ...methods.datasets.image_folder import ImageFolder
from ..core.inputs import file_name_input, fixed_seed, names_of, overwrite_input
from ..core.sockets import DATA, Classifier, Dataset, schema
from ..core.ui import as_image, shown

DEFAULT = ClassifierSettings()
CLASSIFIERS_FOLDER = "models/attribute_classifiers"


class TrainAttributeClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTrainAttributeClassifier",
            display_name="Train Attribute Classifier",
            category=DATA,
            description=(
                "Trains a small classifier of perceived attributes on labelled images, real and generated (the downstream "
                "use of Balancing Act, CVPR 2024). If the run is interrupted, queue it again and it resumes. Next: Classifier "
                "Fairness."
            ),
            search_aliases=["fair classifier", "image classification", "vit", "cnn", "imagefolder", "downstream", "balancing act"],
            is_output_node=True,
            inputs=[
                Dataset.Input(
                    "dataset",
                    tooltip="Labelled images, from Save Balanced Dataset or Load Dataset. Images of the split 'test' are not used.",
                ),
                file_name_input("my_classifier", CLASSIFIERS_FOLDER),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to learn, separated by commas. Empty: all attributes that the data sets have in common.",
                ),
                io.Combo.Input(
                    "architecture",
                    options=list(ARCHITECTURES),
                    default=CNN,
                    tooltip="'cnn': a small residual convolutional network, for few images. 'vit': a small vision transformer, which "
                    "needs more images. You can inspect it with the neuron nodes.",
                ),
                io.Combo.Input(
                    "image_size",
                    options=[str(s) for s in SIZES],
                    default=str(DEFAULT.image_size),
                    tooltip="Size of the pictures that the classifier sees, in pixels. Pictures are scaled to a square of this size.",
                ),
                io.Int.Input("steps", default=DEFAULT.steps, min=1, max=10_000_000, tooltip="Number of training steps."),
                io.Int.Input("batch", default=DEFAULT.batch, min=1, max=65_536, tooltip="Number of images per step."),
                io.Combo.Input(
                    "augment",
                    options=list(AUGMENTATIONS),
                    default=QUALITY,
                    tooltip="Random changes of the training images. 'geometry': mirror, rotate, move and scale a little. 'quality': "
                    "also blur and add noise, which makes real and generated images more alike. 'colour': also tint, which harms "
                    "labels that depend on colour.",
                ),
                io.Float.Input(
                    "generated_weight",
                    default=DEFAULT.generated_weight,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="How often a generated image is used for each time a real image is used. 1 is equally often. 0 uses no "
                    "generated images.",
                ),
                io.String.Input(
                    "balance",
                    default="",
                    tooltip="Attributes whose combinations are used equally often, separated by commas. Rare combinations are "
                    "repeated. Empty: as often as they occur.",
                ),
                fixed_seed("Seed of the training. It decides the first weights, the order of the images, and which of them are held out."),
                overwrite_input(),
                Dataset.Input(
                    "more", optional=True, tooltip="A second data set to train on, for example generated images in addition to real ones."
                ),
            ],
            outputs=[
                Classifier.Output(
                    "classifier",
                    display_name="classifier",
                    tooltip="The classifier, for Classifier Fairness and Attribute Histogram. It is also saved.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The number of real and generated images, and how well each class is read on held-out images.",
                ),
                io.Image.Output("chart", display_name="chart", tooltip="The loss by step."),
            ],
        )

    @classmethod
    def execute(
        cls, dataset: ImageFolder, name: str, attribute: str, overwrite: bool, more: ImageFolder | None = None, **widgets: Any
    ) -> io.NodeOutput:
        names = ("architecture", "steps", "batch", "augment", "generated_weight", "seed")
        settings = ClassifierSettings(
            **{n: widgets[n] for n in names}, image_size=int(widgets["image_size"]), balance=tuple(names_of(widgets["balance"]))
        )
        datasets = [dataset] if more is None else [dataset, more]
        outcome = train_and_save_classifier(datasets, names_of(attribute), settings, name, overwrite)
        report, chart = "\n".join(outcome.lines), as_image(training_curves({"loss": outcome.trained.log}))
        return io.NodeOutput(outcome.classifier, report, chart, ui=shown(cls, chart, report))


NODES = [TrainAttributeClassifier]
