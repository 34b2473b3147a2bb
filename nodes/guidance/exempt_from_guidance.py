"""Exempt From Guidance."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core.patch import EXEMPT_KEY
from ..core.sockets import MAIN, schema


class ExemptFromGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseExemptFromGuidance",
            display_name="Exempt From Guidance",
            category=MAIN,
            description=(
                "Marks a prompt that distribution guidance must leave alone. Its rows are not read, not edited and not counted. "
                "Use it on a guided MODEL for prompts that name an attribute themselves."
            ),
            search_aliases=["explicit prompt", "skip guidance", "bypass", "distribution guidance", "fair", "gender", "women"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="Prompt to leave alone, such as '... with eyeglasses'. The node marks a copy."
                )
            ],
            outputs=[
                io.Conditioning.Output(
                    "exempt", display_name="CONDITIONING", tooltip="The marked prompt, for a sampler or for Conditioning Combine."
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning: io.Conditioning.Type) -> io.NodeOutput:
        return io.NodeOutput([[entry[0], {**entry[1], EXEMPT_KEY: True}, *entry[2:]] for entry in conditioning])


NODES = [ExemptFromGuidance]
