"""Contrast Directions."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...host.guidance.contrast import IMAGES, LEVELS, contrast_directions
from ...host.guidance.prompt_sampling import PromptSampling
from ...methods.guidance.prompt_classes import parse_prompt_classes
from ...models.adp import AdpFile
from ...models.sites import MIDDLE
from ..core.inputs import SAMPLER, TRIAL, fixed_seed
from ..core.sockets import MAKE, Adp, schema
from .prompt_inputs import PROMPT_CLASSES


class ContrastDirections(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseContrastDirections",
            display_name="Contrast Directions",
            category=MAKE,
            description=(
                "Finds directions for a text model in minutes, without images or labels. It compares what prompts of different "
                "classes change inside the U-Net on the same noised latents. Next: Calibrate ADP with a classifier, or Distribution "
                "Guidance with direction 'prompt-contrast'."
            ),
            search_aliases=["directions", "prompt pairs", "prompt-contrast", "h-space", "concept", "steering", "balancing act"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A text-to-image model, such as SD1.5 or SDXL, without guidance. The node works on a copy."
                ),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                *PROMPT_CLASSES.inputs(),
                TRIAL.latent(),
                io.Int.Input(
                    "images",
                    default=IMAGES,
                    min=2,
                    max=4096,
                    tooltip="Latents to sample, rounded up to whole batches and to equal parts of the classes. They are not decoded.",
                ),
                io.Int.Input(
                    "noise_levels",
                    default=LEVELS,
                    min=2,
                    max=50,
                    tooltip="Number of noise levels with a direction. They are evenly spaced in log-SNR over the model's schedule.",
                ),
                fixed_seed("Seed of the first batch. Each further batch adds 1."),
                *SAMPLER.inputs(cfg=4.0),
                io.String.Input(
                    "site",
                    default=MIDDLE,
                    tooltip="Place in the U-Net where directions are read and act: 'middle', 'output.N' (the output of up block N), or "
                    "'auto' (the end of the level with the smallest maps).",
                ),
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Negative prompt of the sampled latents. The directions themselves are computed without one.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="An ADP of this model. The node adds the directions to it. Without one, the new file has no predictor.",
                ),
            ],
            outputs=[
                Adp.Output(
                    "contrasted",
                    display_name="ADP",
                    tooltip="The directions, not calibrated, for Calibrate ADP, Save ADP or Distribution Guidance.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="By noise level: how far a prompt of another class moves h, and how well single latents agree.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, attribute: str, templates: str, classes: str) -> bool | str:
        if None in (attribute, templates, classes):  # linked: known only when it runs
            return True
        try:
            parse_prompt_classes(attribute, templates, classes)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        clip: io.Clip.Type,
        latent_image: io.Latent.Type,
        images: int,
        noise_levels: int,
        site: str,
        adp: AdpFile | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        sampling = PromptSampling(model, clip, latent_image, SAMPLER.take(widgets), images, widgets["negative"])
        contrast = contrast_directions(sampling, PROMPT_CLASSES.take(widgets), noise_levels, site, adp)
        report = "\n".join(contrast.lines)
        return io.NodeOutput(contrast.file, report, ui=ui.PreviewText(report))


NODES = [ContrastDirections]
