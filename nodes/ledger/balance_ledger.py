"""Balance Ledger."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.ledger.ledgers import (
    LEDGERS_FOLDER,
    LedgerHandle,
    ledger_path,
)
from ...methods.ledger.ledger_report import ledger_text
from ..core.sockets import MAIN, Ledger, schema


def _name_problem(name: str) -> bool | str:
    """Return True for a possible name of a ledger, otherwise the problem."""
    try:
        ledger_path(name.strip())
    except ValueError as error:
        return str(error)
    return True


class BalanceLedger(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBalanceLedger",
            display_name="Balance Ledger",
            category=MAIN,
            description=(
                "Keeps the shares of perceived attributes over many runs. Use it if you make images one at a time. Guidance "
                "with a ledger takes its quotas from everything that was counted. With Record Attributes, the ledger also makes up for "
                "images that missed their class."
            ),
            search_aliases=["fair", "balance", "queue", "batch 1", "running balance", "count", "history", "diversity", "gender", "women"],
            inputs=[
                io.String.Input(
                    "name",
                    default="portraits",
                    tooltip=f"Name of the ledger, a file in {LEDGERS_FOLDER}. If the ledger exists, it continues.",
                ),
                io.String.Input(
                    "group",
                    default="",
                    tooltip="Images of different groups are counted separately, for example one group per prompt. Empty: one group for "
                    "everything.",
                ),
            ],
            outputs=[
                Ledger.Output(
                    "ledger", display_name="ledger", tooltip="The ledger, for the guidance nodes, Bias Feature Steer and Record Attributes."
                ),
                io.String.Output(
                    "text", display_name="text", tooltip="What the ledger contained when it was opened. Ledger Report shows it at any time."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str) -> bool | str:
        return _name_problem(name)

    @classmethod
    def execute(cls, name: str, group: str = "") -> io.NodeOutput:
        handle = LedgerHandle(name.strip(), group.strip())
        ledger, notes = handle.opened()
        return io.NodeOutput(handle, ledger_text(handle.name, ledger.balances(), notes))


NODES = [BalanceLedger]
