"""Class Label."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.small_models.adm_info import conditioning
from ...host.small_models.adm_model import info_of
from ..core.sockets import SMALL_MODELS, schema


class ClassLabel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseClassLabel",
            display_name="Class Label",
            category=SMALL_MODELS,
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


NODES = [ClassLabel]
