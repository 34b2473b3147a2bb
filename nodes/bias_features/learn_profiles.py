"""Learn Feature Profiles."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...charts.core.learning import learning_curves
from ...host.bias_features.learn_profiles import LR, learn_profiles
from ...host.core.fit.session import PLACE
from ...methods.guidance.fit_moves import FitSettings
from ..core.shared_inputs import fit_batch, fixed_seed, names_of, picture_conditions
from ..core.sockets import TRAINING, Adp, BiasFeatures, Classifier, Features, Labels, Sae, schema
from ..core.ui import as_image, shown


class LearnFeatureProfiles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLearnFeatureProfiles",
            display_name="Learn Feature Profiles",
            category=TRAINING,
            description=(
                "Learns how far each bias feature has to be turned, at every noise level and place, so that an image becomes each class: a "
                "fit through the decoder, once, with a classifier as judge. Interrupted, it goes on where it stopped. Next: Calibrate Bias "
                "Features."
            ),
            search_aliases=["difflens", "sparse autoencoder", "steering", "h-space", "profile", "strength"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the autoencoder was trained for, not steered; it is cloned, not changed."),
                Sae.Input("sae", tooltip="The autoencoder, from Train SAE or Load SAE."),
                BiasFeatures.Input("bias_features", tooltip="Features found in that autoencoder, from Find Bias Features."),
                Features.Input("features", tooltip="A set of this model, whose pictures are learned from, at most 2,048 of them."),
                Labels.Input("labels", tooltip="Labels of that set."),
                io.Vae.Input("vae", tooltip="The model's own VAE: encodes the pictures, and decodes predictions for the classifier."),
                Classifier.Input("classifier", tooltip="Judges predicted images while the profiles are fitted."),
                io.String.Input(
                    "attribute", default="", tooltip="Attributes to learn, separated by commas, together. Empty = all of the bias features."
                ),
                io.Int.Input(
                    "more",
                    default=128,
                    min=0,
                    max=65536,
                    tooltip="Features added for their effect: those whose turning changes the labels most, whatever a reader sees in them.",
                ),
                io.Int.Input("fit_steps", default=300, min=1, max=100_000, tooltip="Steps of the fit. A few hundred do; more sharpen."),
                fit_batch(32),
                fixed_seed("Seed of the fit: images, noise, classes."),
                io.String.Input(
                    "name",
                    default="my_profiles",
                    tooltip=f"The fit is kept in {PLACE}, under this name: interrupted, it goes on there with the same settings.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="Where it reads an attribute, its profile depends on what an image is now; steering then needs this ADP too.",
                ),
                *picture_conditions(),
            ],
            outputs=[
                BiasFeatures.Output(
                    "learned",
                    display_name="bias features",
                    tooltip="With learned profiles: for Calibrate Bias Features, or to save as it is.",
                ),
                io.String.Output("report", display_name="report", tooltip="What was learned, from what, and how far the losses fell."),
                io.Image.Output("chart", display_name="chart", tooltip="Losses by step."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        sae: Any,
        bias_features: Any,
        features: Any,
        labels: Any,
        vae: Any,
        classifier: Any,
        attribute: str,
        more: int,
        fit_steps: int,
        batch: int,
        seed: int,
        name: str,
        adp: Any = None,
        positive: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        made = learn_profiles(
            model,
            sae,
            bias_features,
            features,
            labels,
            vae,
            classifier,
            FitSettings(steps=fit_steps, batch=batch, lr=LR, seed=seed),
            name,
            adp=adp,
            attributes=names_of(attribute),
            more=more,
            positive=positive,
            clip=clip,
        )
        report, chart = "\n".join(made.lines), as_image(learning_curves(made.curve, "losses while profiles are learned"))
        return io.NodeOutput(made.file, report, chart, ui=shown(cls, chart, report))


NODES = [LearnFeatureProfiles]
