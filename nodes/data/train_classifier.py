"""Train Attribute Classifier."""

from __future__ import annotations

from comfy_api.latest import io

from ...charts.core.curves import training_curves
from ...host.data.train_classifier import train_and_save
from ...methods.data.augment import AUGMENTATIONS, QUALITY
from ...methods.data.classifier_training import ARCHITECTURES, CNN, SIZES, ClassifierSettings
from ...methods.data.image_folder import ImageFolder
from ..core.shared_inputs import fixed_seed, names_of
from ..core.sockets import DATA, Classifier, Dataset, schema
from ..core.ui import as_image, shown

DEFAULT = ClassifierSettings()
FOLDER = "models/attribute_classifiers"


class TrainAttributeClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTrainAttributeClassifier",
            display_name="Train Attribute Classifier",
            category=DATA,
            description=(
                "Trains a small classifier of perceived attributes on labelled images, real and generated ones weighed apart (the "
                "downstream use of Balancing Act, CVPR 2024). An interrupted training goes on where it stopped. Next: Classifier Fairness."
            ),
            search_aliases=["fair classifier", "image classification", "vit", "cnn", "imagefolder", "downstream", "balancing act"],
            is_output_node=True,
            inputs=[
                Dataset.Input("dataset", tooltip="From Save Balanced Dataset or Load Dataset. Its split 'test' takes no part."),
                io.String.Input("name", default="my_classifier", tooltip=f"Name of the file in {FOLDER}, without folders."),
                io.String.Input("attribute", default="", tooltip="Attributes to learn, separated by commas. Empty: all that are labelled."),
                io.Combo.Input(
                    "architecture",
                    options=list(ARCHITECTURES),
                    default=CNN,
                    tooltip="'cnn': a small residual convolutional network, for few images. 'vit': a small vision transformer, which the "
                    "neuron nodes can look into.",
                ),
                io.Combo.Input(
                    "image_size",
                    options=[str(s) for s in SIZES],
                    default=str(DEFAULT.image_size),
                    tooltip="Pixels that the classifier sees; larger pictures are scaled down to it.",
                ),
                io.Int.Input("steps", default=DEFAULT.steps, min=1, max=10_000_000, tooltip="Steps of the training, of a batch each."),
                io.Int.Input("batch", default=DEFAULT.batch, min=1, max=65_536, tooltip="Images per step."),
                io.Combo.Input(
                    "augment",
                    options=list(AUGMENTATIONS),
                    default=QUALITY,
                    tooltip="'geometry': mirrored, turned, moved a little. 'quality': blurred and noisy too, which brings real and "
                    "generated images nearer. 'colour': tinted too, which harms labels that are read off colours.",
                ),
                io.Float.Input(
                    "generated_weight",
                    default=DEFAULT.generated_weight,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="How often a generated image is drawn where a real one is drawn once. 1 = alike, 0 = no generated ones.",
                ),
                io.String.Input(
                    "balance",
                    default="",
                    tooltip="Attributes, separated by commas, whose combinations are drawn equally often (oversampling). Empty: by number.",
                ),
                fixed_seed("First weights, the order of the images, and which of them are held out."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of that name. Off: refuse, and leave it as it is."),
                Dataset.Input("more", optional=True, tooltip="A second set to train on too, say generated images beside real ones."),
            ],
            outputs=[
                Classifier.Output(
                    "classifier", display_name="classifier", tooltip="For Classifier Fairness, Attribute Histogram; saved under its name."
                ),
                io.String.Output("report", display_name="report", tooltip="What it was trained on, and how well it reads held-out images."),
                io.Image.Output("chart", display_name="chart", tooltip="The loss by step."),
            ],
        )

    @classmethod
    def execute(
        cls,
        dataset: ImageFolder,
        name: str,
        attribute: str,
        architecture: str,
        image_size: str,
        steps: int,
        batch: int,
        augment: str,
        generated_weight: float,
        balance: str,
        seed: int,
        overwrite: bool,
        more: ImageFolder | None = None,
    ) -> io.NodeOutput:
        settings = ClassifierSettings(
            architecture=architecture,
            image_size=int(image_size),
            steps=steps,
            batch=batch,
            augment=augment,
            generated_weight=generated_weight,
            balance=tuple(names_of(balance)),
            seed=seed,
        )
        folders = [dataset] if more is None else [dataset, more]
        outcome = train_and_save(folders, names_of(attribute), settings, name, overwrite)
        report, chart = "\n".join(outcome.lines), as_image(training_curves({"loss": outcome.made.log}))
        return io.NodeOutput(outcome.classifier, report, chart, ui=shown(cls, chart, report))


NODES = [TrainAttributeClassifier]
