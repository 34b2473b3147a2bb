"""Learn Directions."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.guidance.learn_directions import learn_directions
from ...host.guidance.learning_pictures import LearningInputs
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.adp import AdpFile
from ..core.inputs import PICTURES, names_of
from ..core.sockets import MAKE, Adp, Classifier, Features, Labels, schema
from .learning_inputs import ALIASES, fit_inputs, fit_settings, learned_output, learned_outputs


class LearnDirections(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLearnDirections",
            display_name="Learn Directions",
            category=MAKE,
            description=(
                "Learns, from the pictures and labels of a feature set, vectors that move an image to each class when they are "
                "added inside the U-Net. The fit is done once, at every noise level, with a classifier as judge if you connect one. If "
                "you interrupt it, it continues where it stopped. Next: Calibrate ADP."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that the ADP was trained for, without guidance. The node works on a copy."),
                Adp.Input(
                    "adp",
                    tooltip="From Train ADP or Load ADP. The vectors depend on what the ADP reads in an image. An attribute that it "
                    "does not read gets one vector per class.",
                ),
                Features.Input("features", tooltip="The feature set with the pictures to learn from, at most 2,048 of them."),
                Labels.Input("labels", tooltip="Labels of that set."),
                io.Vae.Input("vae", tooltip="The model's own VAE. It encodes the pictures, and decodes predictions for the classifier."),
                io.String.Input(
                    "attributes",
                    default="",
                    tooltip="Attributes to learn, separated by commas. Several are learned together. Empty: all labelled attributes.",
                ),
                *fit_inputs(300, 32, "my_directions"),
                Classifier.Input(
                    "classifier",
                    optional=True,
                    tooltip="Reads predicted images during the fit, which makes the directions more reliable. Without one, they are "
                    "learned by denoising the pictures of each class.",
                ),
                *PICTURES.inputs(),
            ],
            outputs=learned_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        adp: AdpFile,
        features: FeatureSet,
        labels: LabelSet,
        vae: io.Vae.Type,
        **widgets: Any,
    ) -> io.NodeOutput:
        inputs = LearningInputs(model, features, labels, vae, widgets.get("classifier"), **PICTURES.take(widgets))
        attributes = names_of(widgets["attributes"])
        learned = learn_directions(inputs, adp, fit_settings(widgets), widgets["name"], attributes, widgets["site"])
        return learned_output(cls, learned, "losses while directions are learned")


NODES = [LearnDirections]
