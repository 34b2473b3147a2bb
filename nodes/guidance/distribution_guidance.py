"""Distribution Guidance."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.guidance.apply import apply_guidance
from ...host.ledger.assigned_runs import AssignedRuns
from ...host.ledger.ledgers import LedgerHandle
from ...models.adp import AdpFile
from ..core.inputs import ledger_input, rounding_seed
from ..core.queued import checked_strength
from ..core.sockets import MAIN, assigned_output, schema
from .edit_inputs import GUIDANCE_EDIT


class DistributionGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseDistributionGuidance",
            display_name="Distribution Guidance",
            category=MAIN,
            description=(
                "Makes every batch follow your target shares (after Balancing Act, CVPR 2024, with quotas and calibrated "
                "moves). Place it after LoRA and before FreeU. Any sampler can follow. It needs one U-Net call per step, as in plain "
                "sampling."
            ),
            search_aliases=["fair", "debias", "balance", "diversity", "gender", "women", "same face", "balancing act"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.5, SDXL, or a model from Load Unconditional Diffusion. The node changes a copy."),
                *GUIDANCE_EDIT.inputs(),
                rounding_seed(
                    "Seed for rounding. When the batch does not divide evenly, it decides which class gets the extra image. -1 takes the "
                    "sampler's seed."
                ),
                ledger_input(),
            ],
            outputs=[io.Model.Output("guided", display_name="MODEL", tooltip="The guided model, for any sampler."), assigned_output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, strength: float) -> bool | str:
        return checked_strength(cls, strength, 0.0, 100.0)

    @classmethod
    def execute(cls, model: io.Model.Type, adp: AdpFile, ledger: LedgerHandle | None = None, **widgets: Any) -> io.NodeOutput:
        assigned = AssignedRuns()
        return io.NodeOutput(apply_guidance(model, adp, GUIDANCE_EDIT.take(widgets, model), assigned.add, ledger), assigned)


NODES = [DistributionGuidance]
