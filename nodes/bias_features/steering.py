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
        Sae.Input("sae", tooltip="The sparse autoencoder of this model, from Load SAE."),
        BiasFeatures.Input("bias_features", tooltip="Bias features of this autoencoder, from Load Bias Features."),
        io.String.Input(
            "attribute",
            default="eyeglasses",
            tooltip="Name of the attribute, as in the bias features. The output text of Load Bias Features lists the names. Not used "
            "with a target.",
        ),
        io.String.Input("class_name", default="yes", tooltip="Class to steer every image to. Not used with a target."),
    ]


def edit_inputs() -> list[Any]:
    """How features are turned."""
    return [
        io.Combo.Input(
            "mode",
            options=list(STEER_MODES),
            default=STEER_MODES[0],
            tooltip="How features are changed. 'profile' adds the class's profile, by place and noise level. The others are the "
            "paper's, and act on all positions: 'scale' multiplies the features by the amount, 'add' adds the amount, 'suppress' turns "
            "them down, to zero at strength 1.",
        ),
        io.Combo.Input(
            "profile",
            options=list(PROFILES),
            default=PROFILES[0],
            tooltip="Used by mode 'profile'. 'calibrated' is the profile of the file that brought most images to their class in "
            "calibration. 'learned' was fitted by its effect. 'class-difference' is the mean activation of the class minus that of the "
            "others.",
        ),
        io.Int.Input(
            "features",
            default=0,
            min=0,
            max=4096,
            tooltip="How many of the best features of each class are changed. 0 is all that the file holds. The profiles are calibrated "
            "with all features, so fewer do less.",
        ),
        io.Float.Input(
            "amount",
            default=3.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip="The factor for 'scale', or the value to add for 'add', in units of the autoencoder. The other modes do not use it.",
        ),
        rows_input(),
        *window_inputs("steering", " The profile's own window of noise levels applies within it."),
        io.Combo.Input(
            "rule",
            options=list(RULES),
            default=RULES[0],
            tooltip="'one pass' uses the edited prediction as it is. 'asyrp' is the paper's rule, for comparison: the clean image of "
            "the edited U-Net call and the noise of a second, plain one. It takes twice the time.",
        ),
    ]


def only_input() -> Any:
    """Single features, in place of the best ones.

    The last input of a node, since it came later.
    """
    return io.String.Input(
        "only",
        optional=True,
        default="",
        tooltip="Numbers of single features, such as '7, 123', as Feature Atlas shows and sends them. Only these are changed, whatever "
        "'features' says. Empty: not used.",
    )


def all_to(bias_features: Any, attribute: str, class_name: str) -> Any:
    """The target that sends every image to one class.

    ValueError, naming what there is, for an attribute or class not in the file.
    """
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
                "Steers images towards a class or towards target shares with bias features (after DiffLens, CVPR 2025; by "
                "place, with a class per image, in one U-Net call per step). Place it after LoRA and before FreeU. Several steers can "
                "follow each other, and any sampler can follow."
            ),
            search_aliases=["difflens", "sparse autoencoder", "sae", "debias", "fair", "slider", "concept", "distribution"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.5, SDXL, or a model from Load Unconditional Diffusion. The node changes a copy."),
                *files_inputs(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Factor of the edit. 1 is as calibrated. 0 is off, bit for bit. Below 0 steers to the opposite: to the "
                    "other class if there are two, otherwise away from the class.",
                ),
                *edit_inputs(),
                io.Combo.Input(
                    "assign",
                    options=list(ASSIGN),
                    default=ASSIGN[0],
                    tooltip="With a target: how images get their classes. 'reading' changes the images as little as possible, by an "
                    "ADP's first reading. 'seeded' assigns at random from the seed. 'auto' does what the bias features say. Without an "
                    "ADP, classes always come from the seed.",
                ),
                drawn_seed(
                    "With a target: seed for rounding and for random classes. When the batch does not divide evenly, it decides "
                    "which class gets the extra image. Use the same seed as the sampler."
                ),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="Gives every image a class by quotas, from Target Distribution or Joint Target. attribute and class_name "
                    "are then not used.",
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="Reads the images, to assign classes with the least change and for profiles that depend on the current "
                    "reading of an image.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where to steer (white). The mask is resized to the feature map. One mask for all images, or one for each.",
                ),
                ledger_input("Used only with a target. "),
                only_input(),
            ],
            outputs=[
                io.Model.Output("steered", display_name="MODEL", tooltip="The steered model, for any sampler or another steer."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Which features are changed, at which noise levels, and which images go to which class.",
                ),
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
