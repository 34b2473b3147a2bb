"""Calibrate Bias Features."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.core.curves import share_by_size
from ...host.bias_features.calibrate_steering import calibrate_steering
from ...host.bias_features.trials import SteerFiles, SteerTrials
from ...host.core.trials import TRIALS_FOLDER, SamplingInputs, TrialInputs, log_path
from ...methods.bias_features.calibrate_profile import CalibratedProfiles
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.sae import SaeFile
from ..core.inputs import SAMPLER, TRIAL, fixed_seed, names_of
from ..core.sockets import LAB, Adp, BiasFeatures, Classifier, Sae, schema
from ..core.ui import as_batch, as_image, shown


class CalibrateBiasFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseCalibrateBiasFeatures",
            display_name="Calibrate Bias Features",
            category=LAB,
            description=(
                "Tests on your model, by sampling and reading images, how strongly the profile of each class has to be applied. "
                "Afterwards Bias Feature Steer works at strength 1, and you know up to which strength quality holds. If you interrupt "
                "it, it continues where it stopped."
            ),
            search_aliases=["difflens", "strength", "bisection", "sparse autoencoder", "steering"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the autoencoder was trained for, without steering. The node changes a copy."
                ),
                Sae.Input("sae", tooltip="The sparse autoencoder, from Train SAE or Load SAE."),
                BiasFeatures.Input(
                    "bias_features",
                    tooltip="Bias features with the profiles to calibrate, from Find Bias Features or Learn Feature Profiles.",
                ),
                *TRIAL.inputs(),
                io.Vae.Input("vae", tooltip="Decodes the images of the trials for the classifier."),
                Classifier.Input("classifier", tooltip="Reads the images of the trials. It must know the attribute with all its classes."),
                io.Int.Input(
                    "images",
                    default=48,
                    min=4,
                    max=4096,
                    tooltip="Images per trial, rounded up to whole batches. There are about five to twelve trials per class and profile.",
                ),
                fixed_seed("Seed of the first batch of every trial. Each further batch adds 1. All trials start from the same noise."),
                *SAMPLER.inputs(cfg=7.5),
                io.Float.Input(
                    "enough",
                    default=0.97,
                    min=0.5,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the images steered to a class that must show it. The rest may miss, rounded up: at 0.97, two of 48.",
                ),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to calibrate, separated by commas. Empty: all attributes of the bias features.",
                ),
                io.String.Input(
                    "name",
                    default="my_steering",
                    tooltip=f"Name under which finished trials are saved in {TRIALS_FOLDER}. If the node is interrupted, queue the same "
                    "graph again and it continues. With other settings it starts again.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="Reads the images, for profiles that depend on the current reading of an image. Connect the ADP that they "
                    "were learned with.",
                ),
            ],
            outputs=[
                BiasFeatures.Output(
                    "calibrated",
                    display_name="bias features",
                    tooltip="Bias features with calibrated profiles, for Bias Feature Steer or Save Bias Features.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The share that each class reached, at which noise levels, and up to which strength quality holds.",
                ),
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="Share read as the class, by size of the edit, with a line per class. One picture per attribute.",
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
        adp: AdpFile | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        log_path(name)  # refuse a bad name first
        sampling = SamplingInputs(model, *TRIAL.take(widgets), SAMPLER.take(widgets))
        inputs = TrialInputs(sampling, images, name, widgets["vae"], widgets["classifier"])
        attributes = names_of(widgets["attribute"])
        results = calibrate_steering(SteerTrials(SteerFiles(sae, bias_features, adp), inputs), attributes, widgets["enough"])
        report = "\n".join(line for r in results for line in r.lines)
        charts = [profile_trials_chart(a, r) for a, r in zip(attributes or bias_features.attributes, results, strict=True)]
        chart = as_batch(charts)
        return io.NodeOutput(results[-1].file, report, chart, ui=shown(cls, chart, report))


def profile_trials_chart(attribute: str, result: CalibratedProfiles) -> torch.Tensor:
    """Draw the trials of one attribute with its default profile.

    White if an older log has no sizes.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for trial in result.trials:
        curves.setdefault(trial["class"], []).append((trial["size"], trial["share"]))
    if not curves:
        return torch.ones(1, 520, 960, 3)
    return as_image(share_by_size(curves, f"{attribute}: images that show the class they are sent to", result.record["enough"]))


NODES = [CalibrateBiasFeatures]
