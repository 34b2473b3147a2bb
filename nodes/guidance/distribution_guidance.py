"""Distribution Guidance."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.guidance.apply import apply_guidance
from ..core.patch_inputs import ledger_input
from ..core.shared_inputs import drawn_seed
from ..core.sockets import GUIDANCE, schema
from .edit_inputs import guidance_inputs, guidance_settings


class DistributionGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseDistributionGuidance",
            display_name="Distribution Guidance",
            category=GUIDANCE,
            description=(
                "Makes every batch follow your target shares (after Balancing Act, CVPR 2024, with quotas and calibrated "
                "moves). Place it after LoRA and before FreeU. Any sampler can follow. It needs one U-Net call per step, as in plain "
                "sampling."
            ),
            search_aliases=["fair", "debias", "balance", "diversity", "balancing act"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.5, SDXL, or a model from Load Unconditional Diffusion. The node changes a copy."),
                *guidance_inputs(),
                drawn_seed(
                    "Seed for rounding. When the batch does not divide evenly, it decides which class gets the extra image. Use "
                    "the same seed as the sampler."
                ),
                ledger_input(),
            ],
            outputs=[io.Model.Output("guided", display_name="MODEL", tooltip="The guided model, for any sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        adp: Any,
        target: Any,
        mode: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        rows: str,
        direction: str,
        assign: str,
        seed: int,
        ledger: Any = None,
    ) -> io.NodeOutput:
        settings = guidance_settings(model, seed, target, mode, strength, start_percent, end_percent, rows, direction, assign)
        return io.NodeOutput(apply_guidance(model, adp, settings, ledger=ledger))


NODES = [DistributionGuidance]
