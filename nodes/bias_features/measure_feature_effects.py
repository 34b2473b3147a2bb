"""Measure Feature Effects."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.bias_features.measure_effects import measure_effects
from ...host.bias_features.trials import SteerFiles, SteerTrials
from ...host.core.trials import TRIALS_FOLDER, SamplingInputs, TrialInputs
from ...methods.bias_features.causal_scores import PER_CLASS
from ...methods.bias_features.turn_alone import AMOUNT
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.sae import SaeFile
from ..core.inputs import SAMPLER, TRIAL, fixed_seed, names_of
from ..core.sockets import LAB, BiasFeatures, Classifier, Sae, schema
from ..core.ui import shown
from .ranking_chart import ranking_image


class MeasureFeatureEffects(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseMeasureFeatureEffects",
            display_name="Measure Feature Effects",
            category=LAB,
            description=(
                "Turns the best features of each class up and down, one at a time, and counts what a classifier reads in "
                "the images. So you learn what a feature does, not only what is read from it. If the run is interrupted, queue it "
                "again and it resumes."
            ),
            search_aliases=["difflens", "causal", "intervention", "ablation", "sparse autoencoder", "interpretability"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the autoencoder was trained for, without steering. The node changes a copy."
                ),
                Sae.Input("sae", tooltip="The sparse autoencoder, from Train SAE or Load SAE."),
                BiasFeatures.Input(
                    "bias_features",
                    tooltip="Bias features of this autoencoder, from Find Bias Features, Learn Feature Profiles or Load Bias Features.",
                ),
                *TRIAL.inputs(),
                io.Vae.Input("vae", tooltip="Decodes the images of the trials for the classifier."),
                Classifier.Input("classifier", tooltip="Reads the images of the trials. It must know the attribute with all its classes."),
                io.Int.Input(
                    "images",
                    default=48,
                    min=4,
                    max=4096,
                    tooltip="Number of images per trial, rounded up to full batches. Each feature takes two trials, and one more trial "
                    "has plain images.",
                ),
                fixed_seed("Seed of the first batch of every trial. Each further batch adds 1."),
                *SAMPLER.inputs(cfg=7.5),
                io.Int.Input(
                    "per_class",
                    default=PER_CLASS,
                    min=1,
                    max=4096,
                    tooltip="Number of features of each class to measure. The node takes the best ones by attribution.",
                ),
                io.Float.Input(
                    "amount",
                    default=AMOUNT,
                    min=0.5,
                    max=100.0,
                    step=0.5,
                    tooltip="How far to turn a feature up. The unit is the typical activation of the feature where it is active.",
                ),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to measure, separated by commas. Empty: all attributes of the bias features.",
                ),
                io.String.Input(
                    "name",
                    default="my_steering",
                    tooltip=f"Name under which the trials are saved in {TRIALS_FOLDER}. Finished trials are not repeated while the "
                    "settings stay the same.",
                ),
            ],
            outputs=[
                BiasFeatures.Output(
                    "measured",
                    display_name="bias features",
                    tooltip="The bias features with causal scores. For Learn Feature Profiles, Calibrate Bias Features or Save Bias "
                    "Features.",
                ),
                io.String.Output("report", display_name="report", tooltip="The features of each class in the order of their effect."),
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="The ranked features, with the effect of each next to what it carries. One image per attribute.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        sae: SaeFile,
        bias_features: BiasFeaturesFile,
        images: int,
        name: str,
        **widgets: Any,
    ) -> io.NodeOutput:
        sampling = SamplingInputs(model, *TRIAL.take(widgets), SAMPLER.take(widgets))
        inputs = TrialInputs(sampling, images, name, widgets["vae"], widgets["classifier"])
        trials = SteerTrials(SteerFiles(sae, bias_features), inputs)
        measured = measure_effects(trials, names_of(widgets["attribute"]), widgets["per_class"], widgets["amount"])
        report, chart = "\n".join(measured.lines), ranking_image(measured.file)
        return io.NodeOutput(measured.file, report, chart, ui=shown(cls, chart, report))


NODES = [MeasureFeatureEffects]
