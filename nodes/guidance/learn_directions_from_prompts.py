"""Learn Directions From Prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.core.fit.session import learning_path
from ...host.guidance.learn_from_prompts import IMAGES, learn_from_prompts
from ...host.guidance.prompt_sampling import PromptSampling
from ...models.adp import AdpFile
from ..core.inputs import SAMPLER, TRIAL
from ..core.sockets import MAIN, Adp, schema
from .learning_inputs import ALIASES, fit_inputs, fit_settings, learned_output, learned_outputs
from .prompt_inputs import PROMPT_CLASSES


class LearnDirectionsFromPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLearnDirectionsFromPrompts",
            display_name="Learn Directions From Prompts",
            category=MAIN,
            description=(
                "Learns, from words alone, vectors that move an image to each class. A prompt that leaves the class open then "
                "draws what a prompt with the class would draw. For text models. It needs no classifier, no labels and no pictures. "
                "Next: Calibrate ADP."
            ),
            search_aliases=[*ALIASES, "prompt pairs", "concept", "diversity", "gender", "women"],
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
        model: io.Model.Type,
        clip: io.Clip.Type,
        latent_image: io.Latent.Type,
        images: int,
        name: str,
        adp: AdpFile | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        learning_path(name)  # refuse a bad name first
        prompts = PROMPT_CLASSES.take(widgets)
        sampling = PromptSampling(model, clip, latent_image, SAMPLER.take(widgets), images, widgets["negative"])
        learned = learn_from_prompts(sampling, prompts, fit_settings(widgets), name, adp, widgets["site"])
        return learned_output(cls, learned, "what the edit does not explain yet")


NODES = [LearnDirectionsFromPrompts]
