"""Load Unconditional Diffusion."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...host.small_models.adm_info import conditioning, is_text_model
from ...host.small_models.adm_model import info_of, load_adm
from ...host.small_models.pixel_vae import PixelVae
from ..core.sockets import SMALL_MODELS, schema

MODELS_FOLDER = "equipoise_diffusion"
DEFAULT_FILE = "portraits.safetensors"


class LoadUnconditionalDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files.choices_where(MODELS_FOLDER, lambda metadata: not is_text_model(metadata))
        return schema(
            node_id="EquipoiseLoadUnconditionalDiffusion",
            display_name="Load Unconditional Diffusion",
            category=SMALL_MODELS,
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
                    tooltip=f"A safetensors file from {model_files.folder_hint(MODELS_FOLDER)}, or one that ships with the pack.",
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
        return model_files.fingerprint(MODELS_FOLDER, model_name)

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        model = load_adm(model_files.resolve(MODELS_FOLDER, model_name))
        info = info_of(model)
        return io.NodeOutput(model, PixelVae(info.ratio), conditioning(info, info.null_label))


NODES = [LoadUnconditionalDiffusion]
