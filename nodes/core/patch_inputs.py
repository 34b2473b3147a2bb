"""What all nodes that edit h ask for: which rows, and over which part of the sampling."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...methods.core.batch_run import ROW_CHOICES
from .sockets import Ledger


def rows_input() -> Any:
    """Positive alone, or both."""
    return io.Combo.Input(
        "rows",
        options=list(ROW_CHOICES),
        default=ROW_CHOICES[0],
        tooltip="Under CFG: edit only the rows of the positive prompt ('cond'), or those of the negative too.",
    )


def window_inputs(what: str, more: str = "") -> list[Any]:
    """start_percent and end_percent. ``what``: whose window, in a word; ``more``: a sentence on the start."""
    limits = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Float.Input(
            "start_percent", default=0.0, **limits, tooltip=f"Share of the sampling at which {what} may start (0 = start).{more}"
        ),
        io.Float.Input("end_percent", default=1.0, **limits, tooltip=f"Share of the sampling at which {what} ends (1 = end)."),
    ]


def ledger_input(when: str = "") -> Any:
    """ledger. ``when``: a few words before the sentence, where it is used only then."""
    return Ledger.Input(
        "ledger",
        optional=True,
        tooltip=f"{when}From Balance Ledger: quotas even out what all runs before have drawn, so that images made one at a time reach the "
        "target too.",
    )
