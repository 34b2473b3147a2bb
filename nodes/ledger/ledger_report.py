"""Ledger Report."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io, ui

from ...charts.core.histogram import histogram
from ...host.core.blocked import blocked
from ...host.ledger.ledgers import (
    PICTURES_FOLDER,
    LedgerHandle,
    export_ledger,
    ledgers_fingerprint,
    reset_ledger,
)
from ...methods.core.targets import TargetDistribution
from ...methods.ledger.ledger import Balance
from ...methods.ledger.ledger_report import ledger_text
from ...metrics.panels import Panel, count_panels, headline
from ..core.sockets import MEASURE, Ledger, Target, schema
from ..core.ui import as_image, shown

ACTIONS = REPORT, EXPORT, RESET = ("report", "export CSV", "reset")


def _panels(balance: Balance) -> list[Panel]:
    """Compare the counts of one target with its shares."""
    return count_panels(balance.target.attributes, balance.target.classes, balance.target.shares, balance.counts)


class LedgerReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLedgerReport",
            display_name="Ledger Report",
            category=MEASURE,
            description=(
                "Shows what a Balance Ledger has counted: the perceived classes seen and assigned, their distance to the "
                "target (FD, fairness discrepancy), and how often an image showed its assigned class. It can also write the "
                "ledger to a CSV file, or reset it."
            ),
            search_aliases=[
                "balance", "count", "fairness discrepancy", "chart", "history", "export ledger", "csv", "audit", "table", "reset ledger",
                "clear", "forget", "start over",
            ],  # fmt: skip
            is_output_node=True,
            inputs=[
                Ledger.Input(
                    "ledger", tooltip="The ledger to show. Connect Record Attributes to include the current run, or connect Balance Ledger."
                ),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="Shows only what was counted for this target. If it is not connected, the node shows all targets, the "
                    "newest first.",
                ),
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    default=REPORT,
                    optional=True,
                    tooltip="'report' shows the counts. 'export CSV' also writes a file with one line per image. 'reset' deletes the "
                    "counts of all targets and groups, but no pictures. Confirm 'reset' with counted_images.",
                ),
                io.Int.Input(
                    "counted_images",
                    default=0,
                    min=0,
                    max=2**53 - 1,
                    optional=True,
                    tooltip="Confirms 'reset': the number of images that the ledger counts now. With any other number, nothing is deleted, "
                    "and the text says how many there are. A run that adds images to the ledger cannot reset it.",
                ),
            ],
            outputs=[
                io.Image.Output("chart", display_name="chart", tooltip="Shares of the counted images next to the target, 960 pixels wide."),
                io.Float.Output(
                    "fd",
                    display_name="FD",
                    tooltip="Fairness discrepancy of the first target shown. 0 means exactly the shares you asked for.",
                ),
                io.String.Output("text", display_name="text", tooltip="The counts as text."),
                io.String.Output("json", display_name="JSON", tooltip="Counts, shares, intervals and discrepancies as JSON."),
                io.String.Output(
                    "path",
                    display_name="path",
                    tooltip=f"With 'export CSV': path of the file, {PICTURES_FOLDER}/NAME.csv. An older file is replaced. Otherwise empty.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(
        cls, ledger: LedgerHandle, target: TargetDistribution | None = None, action: str = REPORT, counted_images: int = 0
    ) -> io.NodeOutput:
        opened, notes = ledger.opened()
        counts = opened.balances()[::-1] if target is None else [opened.balance_of(target)]
        counted = [h for h in counts if h is not None and sum(h.counts)]
        nothing = f"the ledger '{ledger.name}' has counted no image{' for this target' if target is not None else ''} yet."
        if not counted and action == REPORT:
            raise ValueError(nothing)
        text, path = ledger_text(ledger.name, counted, notes), ""
        if action == EXPORT:
            file, lines = export_ledger(ledger)
            text, path = f"{lines} images in {PICTURES_FOLDER}/{file.name}\n{text}", str(file)
        if action == RESET:
            text = reset_ledger(ledger, counted_images)
        if not counted:
            return io.NodeOutput(*[blocked(nothing)] * 2, text, blocked(nothing), path, ui=ui.PreviewText(text))
        panels = [panel for h in counted[:4] for panel in _panels(h)]
        chart = as_image(histogram(panels, soft=False))
        figures = {"ledger": ledger.name, "group": counted[0].group, "panels": [p.to_dict() for p in panels]}
        fd = headline(_panels(counted[0]))
        return io.NodeOutput(chart, fd, text, json.dumps(figures, allow_nan=False), path, ui=shown(cls, chart, text))


NODES = [LedgerReport]
