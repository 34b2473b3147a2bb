"""Export Ledger."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...host.ledger.ledgers import (
    PICTURES_FOLDER,
    LedgerHandle,
    export_ledger,
    ledgers_fingerprint,
)
from ..core.sockets import MEASURE, Ledger, schema


class ExportLedger(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseExportLedger",
            display_name="Export Ledger",
            category=MEASURE,
            description=(
                "Writes a Balance Ledger to a CSV file, with one line per image: time, run, seed, the class assigned, the "
                "perceived class seen, the file and its SHA-256."
            ),
            search_aliases=["csv", "save", "audit", "table", "history"],
            is_output_node=True,
            inputs=[
                Ledger.Input(
                    "ledger", tooltip="Ledger to write. Take it from Record Attributes to include this run, or from Balance Ledger."
                )
            ],
            outputs=[
                io.String.Output(
                    "path", display_name="path", tooltip=f"Path of the file, {PICTURES_FOLDER}/NAME.csv. An older file is replaced."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(cls, ledger: LedgerHandle) -> io.NodeOutput:
        path, count = export_ledger(ledger)
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"{count} images in {PICTURES_FOLDER}/{path.name}"))


NODES = [ExportLedger]
