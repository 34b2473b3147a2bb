"""Record Features From Images."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.data.record_images import ImageRecordingSettings, Pictures, record_images
from ...methods.data.recording import parse_levels
from ..core.inputs import LARGEST_SEED
from ..core.sockets import MAKE, schema
from .recording_inputs import recording_output, recording_outputs, set_name_input, site_input, site_of, spatial_input

LEVELS = "-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5"


class RecordFeaturesFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseRecordFeaturesFromImages",
            display_name="Record Features From Images",
            category=MAKE,
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
                set_name_input("my_pictures"),
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
                    max=LARGEST_SEED,
                    control_after_generate=False,
                    tooltip="Seed of the noise of the first picture. Each further picture adds 1.",
                ),
                spatial_input(),
                io.Image.Input(
                    "images", optional=True, tooltip="Pictures as one batch, instead of a folder. They are named 000000.png and so on."
                ),
                site_input(),
            ],
            outputs=recording_outputs(),
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, vae: io.Vae.Type, positive: io.Conditioning.Type, set_name: str, **widgets: Any
    ) -> io.NodeOutput:
        pictures = Pictures.choose(widgets["folder"], widgets.get("images"), widgets["size"])
        settings = ImageRecordingSettings(
            levels=parse_levels(widgets["levels"]),
            seed=widgets["first_seed"],
            batch_size=widgets["batch_size"],
            spatial_levels=parse_levels(widgets["spatial_levels"]),
            site=site_of(widgets),
        )
        return recording_output(cls, record_images(model, vae, positive, pictures, set_name, settings))


NODES = [RecordFeaturesFromImages]
