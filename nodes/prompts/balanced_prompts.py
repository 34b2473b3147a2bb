"""Balanced Prompts: a prompt per image, so that the batch follows a target on any text model."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core.blocked import blocked
from ...host.ledger.assigned import assigned_text
from ...host.ledger.ledgers import LedgerHandle, running_node
from ...host.prompts.balance_prompts import balance_prompts
from ...host.prompts.batch_conditioning import batch_conditioning
from ...methods.core.targets import TargetDistribution
from ...methods.prompts.slots import read_prompt
from ...methods.prompts.typed_target import typed_target
from ..core.inputs import ledger_input, sampler_seed
from ..core.sockets import MAIN, Target, assigned_output, schema

UNCONNECTED = "unconnected"
"""Stands for an input without a connection; the host passes None for one with a connection."""


class BalancedPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBalancedPrompts",
            display_name="Balanced Prompts",
            category=MAIN,
            description=(
                "Gives every image of a batch its own prompt, so that the batch follows your target shares. It needs no ADP and no "
                "training, and works with every text model. In the prompt, write the attribute in braces where the words of a class belong."
            ),
            search_aliases=["wildcard", "dynamic prompts", "fair", "balance", "diversity", "gender", "women", "same face", "half and half"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default="a photo of a {gender} doctor",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Prompt with a slot for each attribute: its name in braces. If there is only one attribute, {} is enough. "
                    "Words with bars between them in braces are a free choice, made by the seed.",
                ),
                io.String.Input(
                    "words",
                    default="woman: woman\nman: man",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Words of each class, a line each, as in the default. Separate several words for one class with bars; the seed "
                    "chooses. Nothing after the colon means no words. With several attributes, write gender/woman before the colon.",
                ),
                io.String.Input(
                    "weights",
                    default="half and half",
                    tooltip="Shares of the classes, in the order of the words: half and half, 40/40/20, woman 60 man 40. With several "
                    "attributes, write them one after another: gender: half and half; age: 40/60. Not used if a target is connected.",
                ),
                io.Latent.Input("latent", tooltip="Latent of the batch. Every image in it gets a prompt."),
                sampler_seed(
                    "Seed for rounding and for the choice of words. When the batch does not divide evenly, it decides which class gets "
                    "the extra image. Use the same seed as the sampler."
                ),
                Target.Input(
                    "target", optional=True, tooltip="Target from Target Distribution. It replaces the weights."
                ),
                ledger_input(),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="Encodes the prompts for the output 'conditioning'. For SD1.5, SD2, SDXL, SD3, FLUX, Wan and Qwen-Image.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "prompts",
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="The different prompts, as a list. Connect it to CLIP Text Encode; ComfyUI then samples prompt by prompt.",
                ),
                io.Latent.Output(
                    "latents",
                    display_name="latents",
                    is_output_list=True,
                    tooltip="The latents of each prompt, as a list for the sampler. Every image keeps the noise that it has in the batch.",
                ),
                io.Conditioning.Output(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="All prompts in one conditioning, a row per image, to sample the whole batch in one pass. It needs clip.",
                ),
                assigned_output(),
                io.String.Output("text", display_name="text", tooltip="The target, the number of images of each class, and the prompts."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None, words: str | None, weights: str | None, target: object = UNCONNECTED) -> bool | str:
        if target is not UNCONNECTED or None in (prompt, words, weights):
            return True
        try:
            read_prompt(prompt, words, typed_target(prompt, words, weights))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        prompt: str,
        words: str,
        weights: str,
        latent: io.Latent.Type,
        seed: int,
        target: TargetDistribution | None = None,
        ledger: LedgerHandle | None = None,
        clip: io.Clip.Type | None = None,
    ) -> io.NodeOutput:
        shares = typed_target(prompt, words, weights) if target is None else target
        balanced = balance_prompts(read_prompt(prompt, words, shares), shares, latent, seed, ledger)
        if clip is None:
            conditioning = blocked("Balanced Prompts has no 'conditioning' without a CLIP: connect one, or use 'prompts' and 'latents'.")
        else:
            conditioning = batch_conditioning(clip, balanced.prompts)
        assigned = assigned_text(shares, balanced.cells, running_node())
        return io.NodeOutput(list(balanced.positions), balanced.parts(latent), conditioning, assigned, balanced.text())


NODES = [BalancedPrompts]
