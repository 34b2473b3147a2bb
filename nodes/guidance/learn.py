"""Learn Directions and Learn Directions From Prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...charts.core.learning import learning_curves
from ...host.core.fit.session import AUTO, LEARNING_FOLDER, learning_path
from ...host.core.sampling import SamplerSettings
from ...host.data.learning_pictures import LearningInputs
from ...host.guidance.learn_directions import learn_directions
from ...host.guidance.learn_from_prompts import IMAGES, learn_from_prompts
from ...host.guidance.learned_moves import LearnedMoves
from ...host.guidance.prompt_sampling import PromptSampling
from ...methods.guidance.fit_moves import FitSettings
from ...methods.guidance.prompt_classes import parse_prompt_classes
from ..core.prompt_inputs import prompt_class_inputs
from ..core.sampler_inputs import sampler_inputs
from ..core.shared_inputs import fit_batch, fixed_seed, names_of, picture_conditions, trial_latent
from ..core.sockets import TRAINING, Adp, Classifier, Features, Labels, schema
from ..core.ui import as_image, shown

ALIASES = ["directions", "h-space", "textual inversion", "attribute distribution predictor", "steering", "balancing act"]


def fit_inputs(steps: int, batch: int, name: str) -> list[Any]:
    """Return the inputs of a fit, the same for both nodes."""
    return [
        io.String.Input(
            "site",
            default=AUTO,
            tooltip="Place in the U-Net where the directions act: 'auto' (the end of the level with the smallest maps), 'middle', or "
            "'output.N' (the output of up block N).",
        ),
        io.Int.Input(
            "fit_steps",
            default=steps,
            min=1,
            max=100_000,
            tooltip="Steps of the fit. A few hundred find the directions. More make them sharper.",
        ),
        fit_batch(batch),
        fixed_seed("Seed of the fit, and of the first batch if latents are sampled."),
        io.String.Input(
            "name",
            default=name,
            tooltip=f"Name under which the fit is saved in {LEARNING_FOLDER}. If the node is interrupted, queue the same graph again and "
            "it continues. With other settings it starts again.",
        ),
    ]


def outputs() -> list[Any]:
    """Return the outputs of both nodes."""
    return [
        Adp.Output(
            "learned",
            display_name="ADP",
            tooltip="An ADP with the learned directions, at the sizes of the fit. For Calibrate ADP, or for Save ADP as it is.",
        ),
        io.String.Output("report", display_name="report", tooltip="What it was learned from, and how far the losses fell."),
        io.Image.Output("chart", display_name="chart", tooltip="Losses by step."),
    ]


def output(cls: type[Any], learned: LearnedMoves, title: str) -> io.NodeOutput:
    """Return a node's outputs, and show report and chart on the node."""
    report, chart = "\n".join(learned.lines), as_image(learning_curves(learned.curve, title))
    return io.NodeOutput(learned.file, report, chart, ui=shown(cls, chart, report))


class LearnDirections(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLearnDirections",
            display_name="Learn Directions",
            category=TRAINING,
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
                *picture_conditions(),
            ],
            outputs=outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        adp: Any,
        features: Any,
        labels: Any,
        vae: Any,
        attributes: str,
        site: str,
        fit_steps: int,
        batch: int,
        seed: int,
        name: str,
        classifier: Any = None,
        positive: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        inputs = LearningInputs(model, features, labels, vae, classifier, positive, clip)
        settings = FitSettings(steps=fit_steps, batch=batch, seed=seed)
        learned = learn_directions(inputs, adp, settings, name, names_of(attributes), site)
        return output(cls, learned, "losses while directions are learned")


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
                *prompt_class_inputs(),
                trial_latent(),
                io.Int.Input(
                    "images",
                    default=IMAGES,
                    min=2,
                    max=4096,
                    tooltip="Latents to sample first, with the prompts of all classes in equal parts. They are not decoded.",
                ),
                *sampler_inputs(cfg=7.5),
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
            outputs=outputs(),
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
        return output(cls, learned, "what the edit does not explain yet")


NODES = [LearnDirections, LearnDirectionsFromPrompts]
