"""Inputs that Bias Feature Steer and Steer Sweep share."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...host.core.versions import advanced
from ...methods.bias_features.run import CALIBRATED, STEER_MODES, SteerSettings, everyone, parse_latents
from ...methods.core.targets import TargetDistribution
from ...models.bias_features import CLASS_DIFFERENCE, LEARNED
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ..core.inputs import WINDOW, Widgets, rounding_seed_of, rows_input
from ..core.sockets import BiasFeatures, Sae

PROFILES = (CALIBRATED, LEARNED, CLASS_DIFFERENCE)
ONE_PASS, ASYRP = "one pass", "asyrp"
RULES = (ONE_PASS, ASYRP)


def files_inputs() -> list[io.Input]:
    """List the autoencoder, the bias features, and the class for every image."""
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


def edit_inputs() -> list[io.Input]:
    """List how features are changed."""
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
        *WINDOW.inputs("steering", " The profile's own window of noise levels applies within it."),
        advanced(
            io.Combo.Input(
                "rule",
                options=list(RULES),
                default=RULES[0],
                tooltip="'one pass' uses the edited prediction as it is. 'asyrp' is the paper's rule, for comparison: the clean image of "
                "the edited U-Net call and the noise of a second, plain one. It takes twice the time.",
            )
        ),
    ]


def only_input() -> io.Input:
    """Return the numbers of single features.

    It stays the last input of a node, because it was added later.
    """
    return io.String.Input(
        "only",
        optional=True,
        default="",
        tooltip="Numbers of single features, such as '7, 123', as Feature Atlas shows and sends them. Only these are changed, whatever "
        "'features' says. Empty: not used.",
    )


def steer_settings(widgets: Widgets, model: io.Model.Type, target: TargetDistribution, **more: Any) -> SteerSettings:
    """Return the settings of a steer towards a target.

    ``more`` holds those that only one node has, such as strength.
    """
    return SteerSettings(
        target=target,
        seed=rounding_seed_of(widgets),
        rows=widgets["rows"],
        mode=widgets["mode"],
        source=widgets["profile"],
        features=widgets["features"],
        only=parse_latents(widgets.get("only", "")),
        amount=widgets["amount"],
        mask=as_masks(widgets.get("mask")),
        **WINDOW.take(widgets, model),
        **more,
    )


def all_to(bias_features: BiasFeaturesFile, attribute: str, class_name: str) -> TargetDistribution:
    """Return the target that steers every image to one class. Raises ValueError for unknown names."""
    attribute, class_name = attribute.strip(), class_name.strip()
    features = bias_features.attribute(attribute)
    features.class_index(class_name)
    return everyone({attribute: features.classes}, attribute, class_name)


def as_masks(mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return a MASK as [N, H, W].

    Some nodes give [H, W] or [N, 1, H, W].
    """
    return None if mask is None else mask.reshape(-1, *mask.shape[-2:])
