"""Learn Feature Profiles."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...charts.core.curves import learning_curves
from ...host.bias_features.learn_profiles import LR, learn_profiles
from ...host.bias_features.trials import SteerFiles
from ...host.core.fit.session import LEARNING_FOLDER
from ...host.guidance.learning_pictures import LearningInputs
from ...methods.data.feature_set import FeatureSet
from ...methods.guidance.fit_moves import FitSettings
from ...methods.labels.labels import LabelSet
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.sae import SaeFile
from ..core.inputs import PICTURES, fit_batch, fixed_seed, names_of
from ..core.sockets import LAB, Adp, BiasFeatures, Classifier, Features, Labels, Sae, schema
from ..core.ui import as_image, shown


class LearnFeatureProfiles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLearnFeatureProfiles",
            display_name="Learn Feature Profiles",
            category=LAB,
            description=(
                "Learns how far each bias feature must be turned, at each noise level and place, so that an image shows a "
                "given class. It fits through the decoder of the U-Net, with a classifier as judge. If the run is interrupted, "
                "queue it again and it resumes. Next: Calibrate Bias Features."
            ),
            search_aliases=["difflens", "sparse autoencoder", "steering", "h-space", "profile", "strength"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the autoencoder was trained for, without steering. The node changes a copy."
                ),
                Sae.Input("sae", tooltip="The sparse autoencoder, from Train SAE or Load SAE."),
                BiasFeatures.Input(
                    "bias_features", tooltip="Bias features of this autoencoder, from Find Bias Features or Load Bias Features."
                ),
                Features.Input(
                    "features",
                    tooltip="A feature set that was recorded with this model. The node learns from its pictures, from 2,048 of them at "
                    "most.",
                ),
                Labels.Input("labels", tooltip="Labels of this feature set, with the same classes as the bias features."),
                io.Vae.Input(
                    "vae", tooltip="The VAE of this model. It encodes the pictures, and decodes predicted images for the classifier."
                ),
                Classifier.Input("classifier", tooltip="Judges the predicted images. It must know the attribute with all its classes."),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to learn, separated by commas. The node learns them together. Empty: all attributes of the "
                    "bias features.",
                ),
                io.Int.Input(
                    "more",
                    default=128,
                    min=0,
                    max=65536,
                    tooltip="Number of features to add because of their effect: those that change the labels of the predicted images "
                    "most, even if the attribution did not choose them. 0 means none.",
                ),
                io.Int.Input(
                    "fit_steps",
                    default=300,
                    min=1,
                    max=100_000,
                    tooltip="Number of steps of the fit. A few hundred are enough. More steps make the profiles sharper.",
                ),
                fit_batch(32),
                fixed_seed("Seed of the fit. It chooses the images, the noise and the classes of each step."),
                io.String.Input(
                    "name",
                    default="my_profiles",
                    tooltip=f"Name under which the progress is saved in {LEARNING_FOLDER}. If the run is interrupted, queue the same graph "
                    "again and it resumes.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="If this ADP reads an attribute, the profile also depends on the class that the ADP reads in the image at "
                    "that moment. Steering then needs the same ADP.",
                ),
                *PICTURES.inputs(),
            ],
            outputs=[
                BiasFeatures.Output(
                    "learned",
                    display_name="bias features",
                    tooltip="The bias features with a learned profile for each attribute. For Calibrate Bias Features or Save Bias "
                    "Features.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="How many features were added and learned, from how many pictures, and how far the losses fell.",
                ),
                io.Image.Output("chart", display_name="chart", tooltip="The losses by step."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        sae: SaeFile,
        bias_features: BiasFeaturesFile,
        features: FeatureSet,
        labels: LabelSet,
        name: str,
        **widgets: Any,
    ) -> io.NodeOutput:
        inputs = LearningInputs(model, features, labels, widgets["vae"], widgets["classifier"], **PICTURES.take(widgets))
        settings = FitSettings(steps=widgets["fit_steps"], batch=widgets["batch"], lr=LR, seed=widgets["seed"])
        files = SteerFiles(sae, bias_features, widgets.get("adp"))
        learned = learn_profiles(inputs, files, settings, name, names_of(widgets["attribute"]), widgets["more"])
        report, chart = "\n".join(learned.lines), as_image(learning_curves(learned.curve, "losses while profiles are learned"))
        return io.NodeOutput(learned.file, report, chart, ui=shown(cls, chart, report))


NODES = [LearnFeatureProfiles]
