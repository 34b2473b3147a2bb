"""ADP Info."""

from __future__ import annotations

from comfy_api.latest import io

from ...methods.adp.figures import describe_adp
from ...models.adp import AdpFile
from ..core.sockets import MEASURE, Adp, schema
from ..core.ui import shown
from .curves import curves_of

NO_FIGURES = "this ADP file keeps no accuracy by noise level"


class ADPInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseADPInfo",
            display_name="ADP Info",
            category=MEASURE,
            description=(
                "Shows what an ADP file contains: its model, attributes and classes, its accuracy and calibration error by "
                "noise level, and its moves with what they reached in calibration."
            ),
            search_aliases=["describe", "inspect", "metadata", "accuracy", "predictor"],
            is_output_node=True,
            inputs=[Adp.Input("adp", tooltip="The ADP to describe, from Load ADP, Train ADP or Calibrate ADP.")],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="The whole description, line by line."),
                io.Image.Output(
                    "chart", display_name="chart", tooltip="Accuracy and loss on held-out images, by noise level, if the file holds them."
                ),
            ],
        )

    @classmethod
    def execute(cls, adp: AdpFile) -> io.NodeOutput:
        text, chart = describe_adp(adp), curves_of(adp)
        if not adp.info.get("accuracy_by_log_snr"):
            text += f"\n\n{NO_FIGURES}."
        return io.NodeOutput(text, chart, ui=shown(cls, chart, text))


NODES = [ADPInfo]
