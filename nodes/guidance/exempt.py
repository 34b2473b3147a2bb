"""Exempt From Guidance."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.core.patch import EXEMPT_KEY
from ..core.sockets import GUIDANCE, schema


class ExemptFromGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseExemptFromGuidance",
            display_name="Exempt From Guidance",
            category=GUIDANCE,
            description=(
                "Marks a prompt that distribution guidance is to leave alone: what it asks for is neither read, nor edited, nor counted. "
                "For prompts that name an attribute themselves, on a MODEL that is guided for all the others."
            ),
            search_aliases=["explicit prompt", "skip guidance", "bypass", "distribution guidance", "fair"],
            inputs=[io.Conditioning.Input("conditioning", tooltip="The prompt to leave alone, such as '... with eyeglasses'.")],
            outputs=[
                io.Conditioning.Output(
                    "exempt", display_name="CONDITIONING", tooltip="The same prompt with the mark, for a sampler or Conditioning Combine."
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning: Any) -> io.NodeOutput:
        return io.NodeOutput([[entry[0], {**entry[1], EXEMPT_KEY: True}, *entry[2:]] for entry in conditioning])


NODES = [ExemptFromGuidance]
