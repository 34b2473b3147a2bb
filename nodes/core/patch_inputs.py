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
        tooltip="What is edited under CFG. 'cond': only the rows of the positive prompt. 'cond+uncond': also those of the negative prompt.",
    )


def window_inputs(what: str, more: str = "") -> list[Any]:
    """start_percent and end_percent. ``what``: whose window, in a word; ``more``: a sentence on the start."""
    limits = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Float.Input(
            "start_percent", default=0.0, **limits, tooltip=f"Share of the sampling at which {what} may start. 0 is the start.{more}"
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            **limits,
            tooltip=f"Share of the sampling at which {what} ends. 1 is the end. At or below start_percent, {what} is off.",
        ),
    ]


def ledger_input(when: str = "") -> Any:
    """ledger. ``when``: a few words before the sentence, where it is used only then."""
    return Ledger.Input(
        "ledger",
        optional=True,
        tooltip=f"{when}Ledger from Balance Ledger. Quotas then make up for all runs before, so images made one at a time reach the "
        "target too.",
    )
