"""Steer Sweep."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.bias_features.steer_sweep import steer_strip
from ...host.bias_features.steer_sweep import Sweep, steer_sweep, strengths_between
from ...host.bias_features.trials import SteerFiles
from ...host.core.trials import SamplingInputs
from ...host.labels.classifier import HostClassifier
from ...methods.bias_features.steer_report import steering_report
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.sae import SaeFile
from ..core.inputs import SAMPLER, TRIAL, sampler_seed
from ..core.sockets import LAB, Adp, Classifier, schema
from ..core.ui import as_image, shown
from .steer_inputs import ASYRP, all_to, edit_inputs, files_inputs, only_input, steer_settings


class SteerSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSteerSweep",
            display_name="Steer Sweep",
            category=LAB,
            description=(
                "Samples the same noise at several strengths of Bias Feature Steer, and puts the images next to each other "
                "in a strip. You see what the steering changes and what it leaves. With a classifier, it counts the class at every "
                "strength."
            ),
            search_aliases=["slider", "strength", "grid", "xy plot", "difflens", "sparse autoencoder", "granular"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD1.5, SDXL, or a model from Load Unconditional Diffusion. It must not be steered by this attribute yet.",
                ),
                *files_inputs(),
                io.Float.Input(
                    "lowest", default=-1.0, min=-2.0, max=2.0, step=0.05, tooltip="First strength. Below 0 steers to the opposite."
                ),
                io.Float.Input("highest", default=1.0, min=-2.0, max=2.0, step=0.05, tooltip="Last strength. 1 is as calibrated."),
                io.Int.Input(
                    "points",
                    default=5,
                    min=2,
                    max=41,
                    tooltip="Number of strengths, in equal steps. The batch is sampled once per strength.",
                ),
                *edit_inputs(),
                sampler_seed("Seed of the noise. It is the same at every strength."),
                *SAMPLER.inputs(),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What to avoid. For an unconditional model, connect the same as positive."),
                io.Latent.Input("latent_image", tooltip="Latent to start from. Each of its images becomes a row of the strip."),
                SAMPLER.denoise(),
                io.Vae.Input("vae", tooltip="Decodes the samples."),
                Adp.Input("adp", optional=True, tooltip="Reads the images, for profiles that depend on the current reading of an image."),
                Classifier.Input(
                    "classifier", optional=True, tooltip="Counts the class at every strength. Use one that took no part in the training."
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where to steer (white). The mask is resized to the feature map."),
                only_input(),
            ],
            outputs=[
                io.Image.Output("strip", display_name="strip", tooltip="A column per strength and a row per image, 8 rows at most."),
                io.Image.Output(
                    "images",
                    display_name="images",
                    tooltip="All images as one batch. The images of the lowest strength come first, then those of the next strength.",
                ),
                io.String.Output("report", display_name="report", tooltip="What is changed, and the share of the class at every strength."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        sae: SaeFile,
        bias_features: BiasFeaturesFile,
        attribute: str,
        class_name: str,
        classifier: HostClassifier | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        strengths = strengths_between(widgets["lowest"], widgets["highest"], widgets["points"])
        adp, asyrp = widgets.get("adp"), widgets["rule"] == ASYRP
        settings = steer_settings(widgets, model, all_to(bias_features, attribute, class_name))
        sampling = SamplingInputs(model, *TRIAL.take(widgets), SAMPLER.take(widgets))
        swept = steer_sweep(SteerFiles(sae, bias_features, adp), sampling, settings, strengths, widgets["vae"], asyrp, classifier)
        name = f"{attribute.strip()}: {class_name.strip()}"
        report = "\n".join([steering_report(bias_features, settings, adp, asyrp), *sweep_lines(swept, name)])
        strip = strip_of(swept, name, "" if classifier is None else f"below: share of images that show the class, by '{classifier.name}'")
        return io.NodeOutput(strip, swept.images.flatten(0, 1), report, ui=shown(cls, strip, report))


def strip_of(swept: Sweep, title: str, note: str) -> torch.Tensor:
    """Draw the labelled strip, IMAGE [1, H, W, 3]."""
    return as_image(steer_strip(swept.images.movedim(-1, 2), swept.strengths, f"{title}, by strength", note, swept.shares))


def sweep_lines(swept: Sweep, name: str) -> list[str]:
    """Report every strength."""
    count = swept.images.shape[1]
    if swept.shares is None:
        return [f"sampled at strength {', '.join(f'{s:g}' for s in swept.strengths)}; {count} images each, from the same noise"]
    return [f"strength {s:+g}: {share:.1%} of {count} images show {name}" for s, share in zip(swept.strengths, swept.shares, strict=True)]


NODES = [SteerSweep]
