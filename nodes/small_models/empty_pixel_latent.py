"""Empty Pixel Latent."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.small_models.adm_model import empty_latent
from ..core.sockets import SMALL_MODELS, schema


class EmptyPixelLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseEmptyPixelLatent",
            display_name="Empty Pixel Latent",
            category=SMALL_MODELS,
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


NODES = [EmptyPixelLatent]
