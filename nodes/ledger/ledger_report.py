"""Ledger Report."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ...charts.core.histogram import histogram
from ...host.ledger.ledgers import (
    LedgerHandle,
    ledgers_fingerprint,
)
from ...methods.core.targets import TargetDistribution
from ...methods.ledger.ledger import Balance
from ...methods.ledger.ledger_report import ledger_text
from ...metrics.panels import Panel, count_panels, headline
from ..core.sockets import MEASURE, Ledger, Target, schema
from ..core.ui import as_image, shown


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
                "target (FD, fairness discrepancy), and how often an image showed its assigned class."
            ),
            search_aliases=["balance", "count", "fairness discrepancy", "chart", "history"],
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
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(cls, ledger: LedgerHandle, target: TargetDistribution | None = None) -> io.NodeOutput:
        opened, notes = ledger.opened()
        counts = opened.balances()[::-1] if target is None else [opened.balance_of(target)]
        counted = [h for h in counts if h is not None and sum(h.counts)]
        text = ledger_text(ledger.name, counted, notes)
        if not counted:
            raise ValueError(f"the ledger '{ledger.name}' has counted no image{' for this target' if target is not None else ''} yet.")
        panels = [panel for h in counted[:4] for panel in _panels(h)]
        chart = as_image(histogram(panels, soft=False))
        figures = {"ledger": ledger.name, "group": counted[0].group, "panels": [p.to_dict() for p in panels]}
        fd = headline(_panels(counted[0]))
        return io.NodeOutput(chart, fd, text, json.dumps(figures, allow_nan=False), ui=shown(cls, chart, text))


NODES = [LedgerReport]
