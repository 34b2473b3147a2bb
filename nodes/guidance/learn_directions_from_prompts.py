"""Learn Directions From Prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.core.fit.session import learning_path
from ...host.core.sampling import SamplerSettings
from ...host.guidance.learn_from_prompts import IMAGES, learn_from_prompts
from ...host.guidance.prompt_sampling import PromptSampling
from ...methods.guidance.fit_moves import FitSettings
from ...methods.guidance.prompt_classes import parse_prompt_classes
from ..core.inputs import SAMPLER, TRIAL
from ..core.sockets import TRAINING, Adp, schema
from .learning_inputs import ALIASES, fit_inputs, learned_output, learned_outputs
from .prompt_inputs import PROMPT_CLASSES


class LearnDirectionsFromPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLearnDirectionsFromPrompts",
            display_name="Learn Directions From Prompts",
            category=TRAINING,
            description=(
                "Learns, from words alone, vectors that move an image to each class. A prompt that leaves the class open then "
                "draws what a prompt with the class would draw. For text models. It needs no classifier, no labels and no pictures. "
                "Next: Calibrate ADP."
            ),
            search_aliases=[*ALIASES, "prompt pairs", "concept"],
            inputs=[
                io.Model.Input("model", tooltip="A text-to-image model, without guidance. The node works on a copy."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                *PROMPT_CLASSES.inputs(),
                TRIAL.latent(),
                io.Int.Input(
                    "images",
                    default=IMAGES,
                    min=2,
                    max=4096,
                    tooltip="Latents to sample first, with the prompts of all classes in equal parts. They are not decoded.",
                ),
                *SAMPLER.inputs(cfg=7.5),
                *fit_inputs(300, 32, "my_prompt_directions"),
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Negative prompt of the sampled latents.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="An ADP of this model. The node adds the directions to it. If it reads the attribute, the vectors depend on "
                    "the reading.",
                ),
            ],
            outputs=learned_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        attribute: str,
        templates: str,
        classes: str,
        latent_image: Any,
        images: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        site: str,
        fit_steps: int,
        batch: int,
        seed: int,
        name: str,
        negative: str,
        adp: Any = None,
    ) -> io.NodeOutput:
        learning_path(name)  # refuse a bad name first
        prompts = parse_prompt_classes(attribute, templates, classes)
        sampler = SamplerSettings(seed, steps, cfg, sampler_name, scheduler)
        sampling = PromptSampling(model, clip, latent_image, sampler, images, negative)
        settings = FitSettings(steps=fit_steps, batch=batch, seed=seed)
        learned = learn_from_prompts(sampling, prompts, settings, name, adp, site)
        return learned_output(cls, learned, "what the edit does not explain yet")


NODES = [LearnDirectionsFromPrompts]
