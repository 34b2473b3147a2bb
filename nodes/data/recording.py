"""Recording feature sets: while sampling, from pictures, and opening one that is there."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...host.core.sampling import SamplerSettings
from ...host.core.versions import advanced
from ...host.data.feature_sets import PLACE, set_fingerprint, set_folder, set_names
from ...host.data.record_images import ImageRecordingSettings, Pictures, record_images
from ...host.data.record_samples import GivenConditions, PromptConditions, record_samples
from ...host.data.recording import check_site
from ...methods.data.feature_set import open_feature_set
from ...methods.data.recording import RecordingSettings, parse_levels
from ...models.sites import MIDDLE
from ..core.sampler_inputs import denoise_input, sampler_inputs
from ..core.sockets import TRAINING, Features, schema

LEVELS = "-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5"


def _name_input(default: str) -> Any:
    return io.String.Input(
        "set_name",
        default=default,
        tooltip=f"Name of the feature set, a folder in {PLACE}. If a set with this name and the same settings exists, the "
        "node continues it.",
    )


def _spatial_input() -> Any:
    return io.String.Input(
        "spatial_levels",
        default="",
        tooltip="Noise levels for training an autoencoder. Near each of them, one call is also kept without pooling. Give "
        "log-SNR values such as -2, 0, 2, or sigmas such as sigma=2.5. Empty: none. An SDXL image at 1024 takes 2.6 MB per "
        "level.",
    )


def _site_input() -> Any:
    return advanced(
        io.String.Input(
            "site",
            default=MIDDLE,
            optional=True,
            tooltip="Place in the U-Net to record: 'middle', which an ADP reads, or the output of an up block, 'output.N', for "
            "an autoencoder there. Maps of up blocks are larger, so set spatial_levels too.",
        )
    )


def _outputs() -> list[Any]:
    return [
        Features.Output("features", display_name="features", tooltip="The feature set, for Label Features and Train ADP."),
        io.String.Output("report", display_name="report", tooltip="What was recorded, the disk space, and warnings."),
        io.Image.Output("pictures", display_name="IMAGE", tooltip="The latest batch of pictures."),
    ]


def _answer(cls: type[Any], outcome: Any) -> io.NodeOutput:
    shown = {**ui.PreviewImage(outcome.images, cls=cls).as_dict(), **ui.PreviewText(outcome.report).as_dict()}
    return io.NodeOutput(outcome.features, outcome.report, outcome.images, ui=shown)


class RecordFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseRecordFeatures",
            display_name="Record Features",
            category=TRAINING,
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
                _name_input("my_features"),
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
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Seed of the first batch. Each further batch adds 1.",
                ),
                *sampler_inputs(steps=50, cfg=7.5),
                denoise_input(),
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
                _spatial_input(),
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
                _site_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        latent_image: Any,
        set_name: str,
        images: int,
        prompts: str,
        negative_prompt: str,
        first_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        every: int,
        unconditional_rows: bool,
        spatial_levels: str,
        clip: Any = None,
        positive: Any = None,
        negative: Any = None,
        site: str = MIDDLE,
    ) -> io.NodeOutput:
        set_folder(set_name)  # a bad name or site is told before a text encoder is loaded
        recording = RecordingSettings(every, unconditional_rows, parse_levels(spatial_levels), site.strip() or MIDDLE)
        check_site(model, recording.site)
        conditions = conditions_from(model, clip, prompts, negative_prompt, positive, negative)
        sampler = SamplerSettings(first_seed, steps, cfg, sampler_name, scheduler, denoise)
        return _answer(cls, record_samples(model, vae, conditions, latent_image, set_name, images, sampler, recording))


def conditions_from(
    model: Any, clip: Any, prompts: str, negative_prompt: str, positive: Any, negative: Any
) -> PromptConditions | GivenConditions:
    """Raises ValueError where it is not clear what to draw."""
    if positive is None and clip is None:
        raise ValueError(
            "there is nothing to draw: connect a CLIP and write prompts, or connect a CONDITIONING to positive (for models without text)."
        )
    if clip is None and prompts.strip():
        raise ValueError("there are prompts, and no CLIP to encode them: connect one, or empty the prompts to draw from positive alone.")
    if positive is not None and prompts.strip():
        raise ValueError("there are prompts, and a CONDITIONING at positive too: empty the prompts, or disconnect positive.")
    if positive is None:
        return PromptConditions(clip, prompts, negative_prompt)
    return GivenConditions(model, positive, negative)


class RecordFeaturesFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseRecordFeaturesFromImages",
            display_name="Record Features From Images",
            category=TRAINING,
            description=(
                "Makes a feature set from existing pictures, such as a labelled data set. The node encodes each picture, "
                "adds noise at the levels you choose, and runs the U-Net once per level. Queue it again to resume, or to add new "
                "pictures."
            ),
            search_aliases=["feature set", "h-space", "dataset", "real images", "train adp"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the ADP is for, as you will use it, with its LoRAs. The node changes a copy."
                ),
                io.Vae.Input("vae", tooltip="Encodes the pictures. Use the VAE that belongs to the model."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="Conditioning for all pictures: a neutral prompt, or the output of Load Unconditional Diffusion or Class "
                    "Label.",
                ),
                _name_input("my_pictures"),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder below ComfyUI's input folder. The node takes the pictures in it and in its subfolders, in order of "
                    "their names. Leave it empty if images is connected.",
                ),
                io.String.Input(
                    "levels",
                    default=LEVELS,
                    tooltip="Noise levels, separated by commas. Give log-SNR values (-2 ln sigma), or sigmas such as sigma=2.5.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip="Crop to a centred square and scale it to this side, in pixels (512 for SD1.5, 1024 for SDXL). 0 leaves "
                    "pictures as they are.",
                ),
                io.Int.Input(
                    "batch_size", default=4, min=1, max=4096, tooltip="Number of pictures at a time. Pictures of the same size go together."
                ),
                io.Int.Input(
                    "first_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Seed of the noise of the first picture. Each further picture adds 1.",
                ),
                _spatial_input(),
                io.Image.Input(
                    "images", optional=True, tooltip="Pictures as one batch, instead of a folder. They are named 000000.png and so on."
                ),
                _site_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        set_name: str,
        folder: str,
        levels: str,
        size: int,
        batch_size: int,
        first_seed: int,
        spatial_levels: str,
        images: Any = None,
        site: str = MIDDLE,
    ) -> io.NodeOutput:
        pictures = Pictures.choose(folder, images, size)
        spatial, site = parse_levels(spatial_levels), site.strip() or MIDDLE
        settings = ImageRecordingSettings(parse_levels(levels), first_seed, batch_size, spatial, site)
        outcome = record_images(model, vae, positive, pictures, set_name, settings)
        return _answer(cls, outcome)


class LoadFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLoadFeatures",
            display_name="Load Features",
            category=TRAINING,
            description=(
                f"Opens a feature set from {PLACE} and checks that all its parts exist. Use it before Label Features and Train ADP."
            ),
            search_aliases=["feature set", "h-space", "dataset", "train adp"],
            inputs=[io.Combo.Input("set_name", options=set_names(), tooltip=f"A feature set in {PLACE}. Press R to refresh the list.")],
            outputs=[
                Features.Output("features", display_name="features", tooltip="The feature set, for Label Features and Train ADP."),
                io.String.Output("text", display_name="text", tooltip="How many images the set holds, and how they were recorded."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, set_name: str) -> str:
        return set_fingerprint(set_name)

    @classmethod
    def execute(cls, set_name: str) -> io.NodeOutput:
        features = open_feature_set(set_folder(set_name))
        lines = [f"'{features.name}': {len(features.entries)} images"]
        for key, value in features.meta.items():
            if key == "prompts":
                lines.append(f"prompts: {len(value)}")
            elif key not in ("format", "version") and not isinstance(value, (dict, type(None))):
                lines.append(f"{key.replace('_', ' ')}: {value}")
        return io.NodeOutput(features, "\n".join(lines))


NODES = [RecordFeatures, RecordFeaturesFromImages, LoadFeatures]
