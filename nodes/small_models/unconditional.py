"""Diffusion models without text: the loader, class labels, and a latent of the right size."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...host.small_models.adm_info import conditioning, is_text_model
from ...host.small_models.adm_model import empty_latent, info_of, load_adm
from ...host.small_models.pixel_vae import PixelVae
from ..core.sockets import LATENT, LOADERS, schema

FOLDER = "equipoise_diffusion"
DEFAULT_FILE = "portraits.safetensors"


class LoadUnconditionalDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files.choices_where(FOLDER, lambda metadata: not is_text_model(metadata))
        return schema(
            node_id="EquipoiseLoadUnconditionalDiffusion",
            display_name="Load Unconditional Diffusion",
            category=LOADERS,
            description=(
                "Loads a pixel diffusion model of the guided-diffusion (ADM) family, unconditional or class-conditional. "
                "Small models ship with the pack. You can convert published ones with 'equipoise convert'. Connect it to KSampler "
                "with Empty Pixel Latent, and set cfg to 1."
            ),
            search_aliases=["adm", "guided diffusion", "p2 weighting", "unconditional", "pixel diffusion", "portraits"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=files,
                    default=DEFAULT_FILE if DEFAULT_FILE in files else None,
                    tooltip=f"A safetensors file from {model_files.folder_hint(FOLDER)}, or one that ships with the pack.",
                ),
            ],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="The diffusion model, for KSampler and Distribution Guidance."),
                io.Vae.Output(
                    "vae", display_name="VAE", tooltip="Converts the model's pixels to images and back without loss, for VAE Decode."
                ),
                io.Conditioning.Output(
                    "unconditional",
                    display_name="unconditional",
                    tooltip=(
                        "Connect it to both positive and negative of KSampler, and set cfg to 1. An unconditional model gives the "
                        "same image at any cfg. For a class-conditional model it is the null label, if the model has one. Use Class Label "
                        "for such a model."
                    ),
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str) -> str:
        return model_files.fingerprint(FOLDER, model_name)

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        model = load_adm(model_files.resolve(FOLDER, model_name))
        info = info_of(model)
        return io.NodeOutput(model, PixelVae(info.ratio), conditioning(info, info.null_label))


class ClassLabel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseClassLabel",
            display_name="Class Label",
            category=LOADERS,
            description=(
                "Chooses the class that a class-conditional model from Load Unconditional Diffusion draws. Place it between the "
                "loader and KSampler, instead of the text prompts."
            ),
            search_aliases=["class conditional", "label", "profession"],
            inputs=[
                io.Model.Input("model", tooltip="A class-conditional MODEL from Load Unconditional Diffusion."),
                io.String.Input(
                    "class_label",
                    default="0",
                    tooltip="Number of the class, from 0, or its name if the file names its classes. Upper and lower case are the same.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive", tooltip="The class, for positive of KSampler."),
                io.Conditioning.Output(
                    "negative",
                    display_name="negative",
                    tooltip=(
                        "The model's null label, for negative of KSampler. With it, a cfg above 1 strengthens the class. If the "
                        "model's file names no null label, cfg must be 1. This applies to most published models."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, class_label: str) -> io.NodeOutput:
        info = info_of(model)
        return io.NodeOutput(conditioning(info, info.class_index(class_label)), conditioning(info, info.null_label))


class EmptyPixelLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseEmptyPixelLatent",
            display_name="Empty Pixel Latent",
            category=LATENT,
            description=(
                "Makes an empty latent with the channels and the size that a model from Load Unconditional Diffusion or Load "
                "Quickstart Text Model expects, on every version of ComfyUI. On older versions, Empty Latent Image makes latents that "
                "are too small for these models."
            ),
            search_aliases=["empty latent", "latent image", "pixel space"],
            inputs=[
                io.Model.Input("model", tooltip="A MODEL from one of the two loaders. The latent fits this model."),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip="Width of the image in pixels. 0 is the size that the model was trained at.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip="Height of the image in pixels. 0 is the size that the model was trained at.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="Images per batch. Guidance meets its target within each batch, as closely as whole images allow.",
                ),
            ],
            outputs=[io.Latent.Output("latent", display_name="LATENT", tooltip="Empty latents, for KSampler with denoise 1.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, width: int, height: int, batch_size: int) -> io.NodeOutput:
        return io.NodeOutput(empty_latent(model, width, height, batch_size))


NODES = [LoadUnconditionalDiffusion, ClassLabel, EmptyPixelLatent]
