"""Images in Batch Order."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...host.prompts.batch_order import in_batch_order
from ..core.sockets import MAIN, schema


class ImagesInBatchOrder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseImagesInBatchOrder",
            display_name="Images in Batch Order",
            category=MAIN,
            description=(
                "Joins the lists of images that ComfyUI made prompt by prompt into one batch, in the order of the batch that Balanced "
                "Prompts got. Place it after VAE Decode."
            ),
            search_aliases=["list to batch", "merge", "collect", "rebatch", "balanced prompts", "wildcard"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="Decoded images, one list entry for each prompt."),
                io.Latent.Input("latents", tooltip="Output 'latents' of the Balanced Prompts whose prompts made the images."),
            ],
            outputs=[io.Image.Output("batch", display_name="IMAGE", tooltip="All images in one batch.")],
        )

    @classmethod
    def execute(cls, images: list[torch.Tensor], latents: list[io.Latent.Type]) -> io.NodeOutput:
        return io.NodeOutput(in_batch_order(images, latents))


NODES = [ImagesInBatchOrder]
