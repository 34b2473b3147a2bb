"""Distribution Guidance, as a patch and together with KSampler."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ...host.core.passes.pass_cache import run_key
from ...host.core.patch import window_sigmas
from ...host.core.sampling import SamplerSettings, guided_ksample
from ...host.guidance.apply import apply_guidance
from ...host.ledger.ledgers import running_node
from ...methods.guidance.run import DIRECTIONS, MODES, GuidanceSettings
from ..core.patch_inputs import ledger_input, rows_input, window_inputs
from ..core.sampler_inputs import denoise_input, sampler_inputs
from ..core.shared_inputs import drawn_seed
from ..core.sockets import GUIDANCE, Adp, Classifier, Target, schema

ASSIGN = ("auto", "reading", "seeded")


def _guidance_inputs() -> list[Any]:
    return [
        Adp.Input("adp", tooltip="The predictor that belongs to this model, from Load ADP."),
        Target.Input("target", tooltip="The distribution to reach, from Target Distribution or Joint Target."),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="'quota': every image is assigned a class, and moved to it. 'chi-square' and 'kl': the paper's losses on the soft "
            "mean of the batch; their strength is another scale, has to be found for each model, and wants large batches.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.01,
            tooltip="Multiplies the calibrated size of the step (in units of the norm of h). 1 = as calibrated, 0 = off, bit-exactly.",
        ),
        *window_inputs("guidance"),
        rows_input(),
        io.Combo.Input(
            "direction",
            options=list(DIRECTIONS),
            default=DIRECTIONS[0],
            tooltip="'calibrated': those of the ADP file that hit most when it was calibrated. Others by name, where the file holds them: "
            "'learned' and 'learned-prompts' (fitted by what they do), 'mean-difference', 'linear-discriminant' and their 'sum' (read off "
            "labelled features), 'prompt-contrast' (read off pairs of prompts). "
            "'adp-gradient': the predictor's own gradient, which needs no calibration, and may change the reading more than the image.",
        ),
        io.Combo.Input(
            "assign",
            options=list(ASSIGN),
            default=ASSIGN[0],
            tooltip="How images get their classes: by least change from the first reading, at random from the seed, or as the ADP "
            "file says ('auto').",
        ),
    ]


def _settings(
    model: Any, seed: int, target: Any, mode: str, strength: float, start: float, end: float, rows: str, direction: str, assign: str
) -> Any:
    sigma_start, sigma_end = window_sigmas(model, start, end)
    return GuidanceSettings(
        target=target,
        mode=mode,
        strength=strength,
        seed=seed,
        rows=rows,
        direction=direction,
        sigma_start=sigma_start,
        sigma_end=sigma_end,
        assign=assign,
    )


class DistributionGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseDistributionGuidance",
            display_name="Distribution Guidance",
            category=GUIDANCE,
            description=(
                "Patches a MODEL so that every batch follows the target (after Balancing Act, CVPR 2024, with quotas and calibrated "
                "moves). Place it after "
                "LoRA and before FreeU; any sampler follows. One U-Net pass per step, as in plain sampling."
            ),
            search_aliases=["fair", "debias", "balance", "diversity", "balancing act"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5, SDXL or unconditional U-Net; it is cloned, not changed."),
                *_guidance_inputs(),
                drawn_seed("Draws who gets the remainder of the quotas. Change it with the sampler's seed."),
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
        settings = _settings(model, seed, target, mode, strength, start_percent, end_percent, rows, direction, assign)
        return io.NodeOutput(apply_guidance(model, adp, settings, ledger=ledger))


class DistributionGuidanceKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseDistributionGuidanceKSampler",
            display_name="Distribution Guidance KSampler",
            category=GUIDANCE,
            description=(
                "KSampler with Distribution Guidance in one node. With a VAE and a classifier it also counts the images that missed "
                "their class and, "
                "with 'repair', makes them once more."
            ),
            search_aliases=["fair", "debias", "balance", "ksampler", "balancing act"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5, SDXL or unconditional U-Net; it is cloned, not changed."),
                drawn_seed("Seed of the noise, and of the remainder of the quotas."),
                *sampler_inputs(),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What to avoid; the same as positive for an unconditional model."),
                io.Latent.Input("latent_image", tooltip="Latent to start from; its batch is the batch that follows the target."),
                denoise_input(),
                *_guidance_inputs(),
                io.Int.Input(
                    "repair",
                    default=0,
                    min=0,
                    max=10,
                    tooltip="Up to this many rounds, images that the classifier reads otherwise than assigned are made again with a "
                    "new seed. Needs vae and classifier.",
                ),
                io.Int.Input(
                    "images_per_pass",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    tooltip="How many images are drawn at once, for cards that cannot hold the whole batch; 0 = all. Quotas, noise, "
                    "progress and repair are those of the whole batch. A cancelled run that is queued again goes on after its last pass.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="For repair and the count of misses: decodes the samples for the classifier."),
                Classifier.Input("classifier", optional=True, tooltip="For repair and the count of misses."),
                ledger_input(),
            ],
            outputs=[
                io.Latent.Output("latent", display_name="LATENT", tooltip="The samples, for VAE Decode."),
                io.String.Output("report", display_name="report", tooltip="Quotas, readings, images made again, and what was rounded."),
                io.String.Output(
                    "assigned",
                    display_name="assigned",
                    tooltip="JSON: the class that every image was assigned, in the order of the "
                    "batch; for Record Attributes.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: Any,
        denoise: float,
        adp: Any,
        target: Any,
        mode: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        rows: str,
        direction: str,
        assign: str,
        repair: int,
        vae: Any = None,
        classifier: Any = None,
        images_per_pass: int = 0,
        ledger: Any = None,
    ) -> io.NodeOutput:
        if repair and (vae is None or classifier is None):
            raise ValueError(
                "repair needs to see the images: connect a VAE and a classifier (Load Attribute Classifier), or set repair to 0."
            )
        settings = _settings(model, seed, target, mode, strength, start_percent, end_percent, rows, direction, assign)
        sampler = SamplerSettings(seed, steps, cfg, sampler_name, scheduler, denoise)
        classify = None if vae is None or classifier is None else classifier_of_latents(vae, classifier, adp, target)
        hidden = cls.hidden
        key = run_key(getattr(hidden, "prompt", None), getattr(hidden, "unique_id", None), latent_image, positive, negative)
        over_all = {"images_per_pass": images_per_pass, "key": key, "ledger": ledger}
        latent, outcome = guided_ksample(
            model, adp, settings, sampler, positive, negative, latent_image, classify, repair, **over_all
        )
        cells = None if outcome.cells is None else [outcome.names[c] for c in outcome.cells]
        told = {"attributes": list(target.attributes), "assigned": cells, "missed": outcome.missed}
        if (run := running_node()) is not None:
            told["run"] = {"prompt": run.run, "node": run.node}
        return io.NodeOutput(latent, outcome.text(), json.dumps(told))


def classifier_of_latents(vae: Any, classifier: Any, adp: Any, target: Any) -> Any:
    """samples -> probabilities in the ADP's class order. Raises ValueError where the classifier does not know the target's attributes."""
    for attribute in target.attributes:
        if set(classifier.attributes.get(attribute, ())) != set(adp.attributes[attribute]):
            raise ValueError(
                f"the classifier cannot judge '{attribute}' with the classes {', '.join(adp.attributes[attribute])}; it knows "
                f"{'; '.join(f'{a}: {chr(44).join(c)}' for a, c in classifier.attributes.items())}: connect one that does, or set "
                f"repair to 0."
            )

    def classify(samples: Any) -> Any:
        read = classifier.probabilities(vae.decode(samples))
        order = {a: [classifier.attributes[a].index(c) for c in adp.attributes[a]] for a in target.attributes}
        return {a: read[a][:, order[a]] for a in target.attributes}

    return classify


NODES = [DistributionGuidance, DistributionGuidanceKSampler]
