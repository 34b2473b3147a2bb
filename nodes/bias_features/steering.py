"""Bias Feature Steer."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ...host.bias_features.apply import apply_steering
from ...host.core.patch import window_sigmas
from ...methods.bias_features.run import CALIBRATED, STEER_MODES, SteerSettings, everyone, parse_latents
from ...methods.bias_features.steer_report import steering_report
from ...methods.core.batch_run import ASSIGN
from ...models.bias_features import CLASS_DIFFERENCE, LEARNED
from ..core.patch_inputs import ledger_input, rows_input, window_inputs
from ..core.shared_inputs import drawn_seed
from ..core.sockets import STEERING, Adp, BiasFeatures, Sae, Target, schema

PROFILES = (CALIBRATED, LEARNED, CLASS_DIFFERENCE)
ONE_PASS, ASYRP = "one pass", "asyrp"
RULES = (ONE_PASS, ASYRP)


def files_inputs() -> list[Any]:
    """The two files, and where every image is to go."""
    return [
        Sae.Input("sae", tooltip="The autoencoder of this model, from Load SAE."),
        BiasFeatures.Input("bias_features", tooltip="Features found in that autoencoder, from Load Bias Features."),
        io.String.Input(
            "attribute",
            default="eyeglasses",
            tooltip="Name of the attribute, as the bias features call it (the loader's text lists them). Not used with a target.",
        ),
        io.String.Input(
            "class_name", default="yes", tooltip="The class that every image is steered to. Not used where a target is connected."
        ),
    ]


def edit_inputs() -> list[Any]:
    """How features are turned."""
    return [
        io.Combo.Input(
            "mode",
            options=list(STEER_MODES),
            default=STEER_MODES[0],
            tooltip="'profile': add the class profile, by place and noise level. The paper's forms, at all positions: 'scale' multiplies "
            "the class's features by the amount, 'add' adds the amount; 'suppress' turns them down to nothing.",
        ),
        io.Combo.Input(
            "profile",
            options=list(PROFILES),
            default=PROFILES[0],
            tooltip="For mode 'profile'. 'calibrated': the one of the file that hit most when it was calibrated. 'learned': fitted by what "
            "it does. 'class-difference': mean activation of the class minus that of the others.",
        ),
        io.Int.Input(
            "features",
            default=0,
            min=0,
            max=4096,
            tooltip="How many of each class's best features are turned; 0 = all that the file holds. The profiles are calibrated with all.",
        ),
        io.Float.Input(
            "amount",
            default=3.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip="For 'scale' the factor, for 'add' what is added, in the autoencoder's units. The other modes do not use it.",
        ),
        rows_input(),
        *window_inputs("steering", " A profile's own window applies within it."),
        io.Combo.Input(
            "rule",
            options=list(RULES),
            default=RULES[0],
            tooltip="'one pass': the edited prediction is used as it is. 'asyrp': the paper's rule, the clean image of the edited pass and "
            "the noise of a second, plain one; twice the time, for comparison.",
        ),
    ]


def only_input() -> Any:
    """Single features, in place of the best ones. The last input of a node, since it came later."""
    return io.String.Input(
        "only",
        optional=True,
        default="",
        tooltip="Numbers of single features, such as '7, 123' (Feature Atlas shows and sends them): only these are turned, whatever "
        "'features' says. Empty: not used.",
    )


def all_to(bias_features: Any, attribute: str, class_name: str) -> Any:
    """The target that sends every image to one class. ValueError, naming what there is, for an attribute or class not in the file."""
    attribute, class_name = attribute.strip(), class_name.strip()
    found = bias_features.attribute(attribute)
    found.class_index(class_name)
    return everyone({attribute: found.classes}, attribute, class_name)


def as_masks(mask: torch.Tensor | None) -> torch.Tensor | None:
    """MASK as [N, H, W]; some nodes give [H, W] or [N, 1, H, W]."""
    return None if mask is None else mask.reshape(-1, *mask.shape[-2:])


class BiasFeatureSteer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBiasFeatureSteer",
            display_name="Bias Feature Steer",
            category=STEERING,
            description=(
                "Patches a MODEL so that features of an autoencoder that carry an attribute are turned while it samples (after DiffLens, "
                "CVPR 2025, by place, with a class per image and in one pass). Place it after LoRA and before FreeU; several may follow "
                "each other, and any sampler."
            ),
            search_aliases=["difflens", "sparse autoencoder", "sae", "debias", "fair", "slider", "concept", "distribution"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5, SDXL or unconditional U-Net; it is cloned, not changed."),
                *files_inputs(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.01,
                    tooltip="1 = as calibrated, 0 = off, bit-exactly; below 0 towards the opposite: the other class where there are two, "
                    "else away from the class.",
                ),
                *edit_inputs(),
                io.Combo.Input(
                    "assign",
                    options=list(ASSIGN),
                    default=ASSIGN[0],
                    tooltip="With a target, how images get their classes: by least change from an ADP's first reading, at random from the "
                    "seed, or as the bias features say ('auto'). Without an ADP always from the seed.",
                ),
                drawn_seed("With a target: draws who gets which class, or the remainder of the quotas. Change it with the sampler's seed."),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="A class per image by quotas, from Target Distribution or Joint Target. When connected, attribute and "
                    "class_name are not used.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="Reads images, for assignment by least change and for profiles that depend on what an image is now.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where to steer (white), resized to the feature map. One for all images, or one each."
                ),
                ledger_input("With a target. "),
                only_input(),
            ],
            outputs=[
                io.Model.Output("steered", display_name="MODEL", tooltip="The steered model, for any sampler or another steer."),
                io.String.Output("report", display_name="report", tooltip="What is turned, at which noise levels, and who goes where."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        sae: Any,
        bias_features: Any,
        attribute: str,
        class_name: str,
        strength: float,
        mode: str,
        profile: str,
        features: int,
        amount: float,
        rows: str,
        start_percent: float,
        end_percent: float,
        rule: str,
        assign: str,
        seed: int,
        target: Any = None,
        adp: Any = None,
        mask: Any = None,
        ledger: Any = None,
        only: str = "",
    ) -> io.NodeOutput:
        sigma_start, sigma_end = window_sigmas(model, start_percent, end_percent)
        settings = SteerSettings(
            target=target if target is not None else all_to(bias_features, attribute, class_name),
            strength=strength,
            seed=seed,
            rows=rows,
            sigma_start=sigma_start,
            sigma_end=sigma_end,
            assign=assign,
            mode=mode,
            source=profile,
            features=features,
            only=parse_latents(only),
            amount=amount,
            mask=as_masks(mask),
        )
        steered = apply_steering(model, sae, bias_features, settings, adp, rule == ASYRP, ledger=None if target is None else ledger)
        report = steering_report(bias_features, settings, adp, rule == ASYRP)
        return io.NodeOutput(steered, report, ui=ui.PreviewText(report))


NODES = [BiasFeatureSteer]
