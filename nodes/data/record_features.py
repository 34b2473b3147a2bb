"""Record Features."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.data.feature_sets import set_folder
from ...host.data.record_samples import GivenConditions, PromptConditions, record_samples
from ...host.data.recording import check_site
from ...methods.data.recording import RecordingSettings, parse_levels
from ..core.inputs import LARGEST_SEED, SAMPLER, Widgets
from ..core.sockets import MAKE, schema
from .recording_inputs import recording_output, recording_outputs, set_name_input, site_input, site_of, spatial_input


class RecordFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseRecordFeatures",
            display_name="Record Features",
            category=MAKE,
            description=(
                "Samples images and records a feature set: the pictures, and the activations of the U-Net's middle block "
                "at every call. You train an ADP (attribute distribution predictor) on it. If the run is interrupted, queue it "
                "again and it resumes."
            ),
            search_aliases=["feature set", "h-space", "dataset", "train adp", "balancing act"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the ADP is for, as you will use it, with its LoRAs. The node changes a copy."
                ),
                io.Vae.Input("vae", tooltip="Decodes the samples. The pictures are saved with the features."),
                io.Latent.Input(
                    "latent_image", tooltip="An empty latent. It sets the size of the images and how many are sampled at once."
                ),
                set_name_input("my_features"),
                io.Int.Input(
                    "images",
                    default=1000,
                    min=1,
                    max=1_000_000,
                    tooltip="Number of images in the set. Raise it later to add more. A finished set stays as it is.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Prompts as plain text, one per line. Each batch takes the next line. Needs clip. Leave it empty if a "
                    "CONDITIONING is connected.",
                ),
                io.String.Input(
                    "negative_prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Negative prompt of all images, encoded with clip. Not used if a CONDITIONING is connected.",
                ),
                io.Int.Input(
                    "first_seed",
                    default=0,
                    min=0,
                    max=LARGEST_SEED,
                    control_after_generate=False,
                    tooltip="Seed of the first batch. Each further batch adds 1.",
                ),
                *SAMPLER.inputs(steps=50, cfg=7.5),
                SAMPLER.denoise(),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Keep every k-th call. 1 keeps all. 50 calls of SD1.5 or SDXL take 2.05 MB per image.",
                ),
                io.Boolean.Input(
                    "unconditional_rows",
                    default=False,
                    tooltip="Keep the rows of the negative prompt too. This doubles the size. Training does not need them.",
                ),
                spatial_input(),
                io.Clip.Input("clip", optional=True, tooltip="Encodes the prompts. For models without text, connect positive instead."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="One CONDITIONING for all images, instead of prompts. From Load Unconditional Diffusion, Class Label or "
                    "CLIP Text Encode.",
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="The negative for positive. If it is not connected, positive is used."
                ),
                site_input(),
            ],
            outputs=recording_outputs(),
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, vae: io.Vae.Type, latent_image: io.Latent.Type, set_name: str, images: int, **widgets: Any
    ) -> io.NodeOutput:
        set_folder(set_name)  # report a bad name or site before a text encoder is loaded
        recording = RecordingSettings(
            widgets["every"], widgets["unconditional_rows"], parse_levels(widgets["spatial_levels"]), site_of(widgets)
        )
        check_site(model, recording.site)
        conditions = conditions_from(model, widgets)
        sampler = SAMPLER.take(widgets, seed="first_seed")
        return recording_output(cls, record_samples(model, vae, conditions, latent_image, set_name, images, sampler, recording))


def conditions_from(model: io.Model.Type, widgets: Widgets) -> PromptConditions | GivenConditions:
    """Return the prompts, or the conditioning that is connected. Raises ValueError for both or neither."""
    clip, prompts, positive = widgets.get("clip"), widgets["prompts"], widgets.get("positive")
    if positive is None and clip is None:
        raise ValueError(
            "there is nothing to draw: connect a CLIP and write prompts, or connect a CONDITIONING to positive (for models without text)."
        )
    if clip is None and prompts.strip():
        raise ValueError("there are prompts, and no CLIP to encode them: connect one, or empty the prompts to draw from positive alone.")
    if positive is not None and prompts.strip():
        raise ValueError("there are prompts, and a CONDITIONING at positive too: empty the prompts, or disconnect positive.")
    if positive is None:
        return PromptConditions(clip, prompts, widgets["negative_prompt"])
    return GivenConditions(model, positive, widgets.get("negative"))


NODES = [RecordFeatures]
