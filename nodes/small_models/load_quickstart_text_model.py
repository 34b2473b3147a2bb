"""Load Quickstart Text Model: the small text-to-image model that ships with the pack."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core import files as model_files
from ...host.small_models.adm_info import is_text_model
from ...host.small_models.adm_model import info_of
from ...host.small_models.pixel_vae import PixelVae
from ...host.small_models.text_model import load_text_model
from ..core.sockets import SMALL_MODELS, schema

MODELS_FOLDER = "equipoise_diffusion"
DEFAULT_FILE = "portraits_text.safetensors"


class LoadQuickstartTextModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files.choices_where(MODELS_FOLDER, is_text_model)
        return schema(
            node_id="EquipoiseLoadQuickstartTextModel",
            display_name="Load Quickstart Text Model",
            category=SMALL_MODELS,
            description=(
                "Loads the small text-to-image model that ships with the pack. It makes drawn portraits of 32 x 32 pixels "
                "in seconds. Use it like Load Checkpoint, with CLIP Text Encode, Empty Pixel Latent, KSampler and VAE Decode."
            ),
            search_aliases=["quickstart", "text to image", "portraits", "checkpoint", "test bed"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=files,
                    default=DEFAULT_FILE if DEFAULT_FILE in files else None,
                    tooltip=f"A text model file from {model_files.folder_hint(MODELS_FOLDER)}, or the one that ships with the pack.",
                ),
            ],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="The diffusion model, for KSampler and Distribution Guidance."),
                io.Clip.Output(
                    "clip",
                    display_name="CLIP",
                    tooltip="The text model, for CLIP Text Encode. It knows the words of its training captions. It reads every other "
                    "word as a pause.",
                ),
                io.Vae.Output(
                    "vae", display_name="VAE", tooltip="Converts the model's pixels to images and back without loss, for VAE Decode."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str) -> str:
        return model_files.fingerprint(MODELS_FOLDER, model_name)

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        model, clip = load_text_model(model_files.resolve(MODELS_FOLDER, model_name))
        return io.NodeOutput(model, clip, PixelVae(info_of(model).ratio))


NODES = [LoadQuickstartTextModel]
