"""Reset Ledger."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...host.ledger.ledgers import (
    LEDGERS_FOLDER,
    PICTURES_FOLDER,
    existing_ledger,
    ledger_names,
    ledgers_fingerprint,
)
from ..core.sockets import MEASURE, schema


class ResetLedger(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseResetLedger",
            display_name="Reset Ledger",
            category=MEASURE,
            description=(
                "Deletes everything that a Balance Ledger has counted of perceived attributes. The pictures stay on disk. "
                "You must enter the number of counted images to confirm, so a graph that you queue again by mistake deletes "
                "nothing."
            ),
            search_aliases=["clear", "forget", "balance", "start over"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "ledger_name", options=ledger_names(), tooltip=f"A ledger in {LEDGERS_FOLDER}. Press R to refresh the list."
                ),
                io.Int.Input(
                    "images",
                    default=0,
                    min=0,
                    max=2**53 - 1,
                    tooltip="Number of images that the ledger counts now, as Ledger Report shows it. With any other number, the node "
                    "does nothing.",
                ),
            ],
            outputs=[io.String.Output("text", display_name="text", tooltip="What the node did, or how many images the ledger counts.")],
        )

    @classmethod
    def fingerprint_inputs(cls, ledger_name: str, images: int) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(cls, ledger_name: str, images: int) -> io.NodeOutput:
        handle = existing_ledger(ledger_name)
        ledger, _ = handle.opened()
        text = f"the ledger '{handle.name}' was left as it is: it counts {ledger.images()} images, and {images} were named."
        if images and ledger.reset(images):
            text = f"the ledger '{handle.name}' has forgotten {images} images; their pictures are still in {PICTURES_FOLDER}/{handle.name}."
        return io.NodeOutput(text, ui=ui.PreviewText(text))


NODES = [ResetLedger]
