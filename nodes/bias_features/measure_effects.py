"""Measure Feature Effects."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.bias_features.measure_effects import measure_effects
from ...host.core.sampling import SamplerSettings
from ...host.core.trials import PLACE
from ...methods.bias_features.causal_scores import PER_CLASS
from ...methods.bias_features.turn_alone import AMOUNT
from ..core.sampler_inputs import sampler_inputs
from ..core.shared_inputs import fixed_seed, names_of, trial_conditions, trial_latent
from ..core.sockets import STEERING, BiasFeatures, Classifier, Sae, schema
from ..core.ui import shown
from .find_bias_features import charts_of


class MeasureFeatureEffects(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseMeasureFeatureEffects",
            display_name="Measure Feature Effects",
            category=STEERING,
            description=(
                "Turns the best features of each class one at a time, up and down, through whole samplings from the same noise, and counts "
                "what a classifier reads in the images: attribution is a reading, this is an effect. Interrupted, it goes on where it "
                "stopped."
            ),
            search_aliases=["difflens", "causal", "intervention", "ablation", "sparse autoencoder", "interpretability"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the autoencoder was trained for, not steered; it is cloned, not changed."),
                Sae.Input("sae", tooltip="The autoencoder, from Train SAE or Load SAE."),
                BiasFeatures.Input("bias_features", tooltip="From Find Bias Features, Learn Feature Profiles or Load Bias Features."),
                *trial_conditions(),
                trial_latent(),
                io.Vae.Input("vae", tooltip="Decodes the trials for the classifier."),
                Classifier.Input("classifier", tooltip="Reads the trials. It has to know the attribute with all its classes."),
                io.Int.Input(
                    "images",
                    default=48,
                    min=4,
                    max=4096,
                    tooltip="Images per trial, rounded up to whole batches. There are two trials per feature, and one of plain images.",
                ),
                fixed_seed("Seed of the first batch of every trial; each further batch counts one up."),
                *sampler_inputs(cfg=7.5),
                io.Int.Input(
                    "per_class", default=PER_CLASS, min=1, max=4096, tooltip="Features of each class that are measured: the best."
                ),
                io.Float.Input(
                    "amount",
                    default=AMOUNT,
                    min=0.5,
                    max=100.0,
                    step=0.5,
                    tooltip="What is added to turn a feature up, in multiples of what it typically is where it is active.",
                ),
                io.String.Input(
                    "attribute", default="", tooltip="Attributes to measure, separated by commas. Empty = all of the bias features."
                ),
                io.String.Input(
                    "name",
                    default="my_steering",
                    tooltip=f"Trials are written down in {PLACE}, under this name, and not repeated while the settings stay as they are.",
                ),
            ],
            outputs=[
                BiasFeatures.Output(
                    "measured", display_name="bias features", tooltip="With causal scores: for Learn Feature Profiles, or to save."
                ),
                io.String.Output("report", display_name="report", tooltip="The features of each class by what turning them does."),
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="The ranked features with their effect beside what they carry; one per attribute.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        sae: Any,
        bias_features: Any,
        positive: Any,
        negative: Any,
        latent_image: Any,
        vae: Any,
        classifier: Any,
        images: int,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        per_class: int,
        amount: float,
        attribute: str,
        name: str,
    ) -> io.NodeOutput:
        measured = measure_effects(
            model,
            sae,
            bias_features,
            positive,
            negative,
            latent_image,
            SamplerSettings(seed, steps, cfg, sampler_name, scheduler),
            images,
            name,
            vae,
            classifier,
            attributes=names_of(attribute),
            per_class=per_class,
            amount=amount,
        )
        report, chart = "\n".join(measured.lines), charts_of(measured.file)
        return io.NodeOutput(measured.file, report, chart, ui=shown(cls, chart, report))


NODES = [MeasureFeatureEffects]
