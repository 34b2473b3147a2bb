"""Bias Feature Steer."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...host.bias_features.apply import apply_steering
from ...host.core.versions import advanced
from ...host.ledger.assigned_runs import AssignedRuns
from ...methods.bias_features.steer_report import steering_report
from ...methods.core.batch_run import ASSIGN
from ...methods.core.targets import TargetDistribution
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.sae import SaeFile
from ..core.inputs import ledger_input, rounding_seed
from ..core.queued import checked_strength
from ..core.sockets import MAIN, Adp, Target, assigned_output, schema
from .steer_inputs import ASYRP, all_to, edit_inputs, files_inputs, only_input, steer_settings


class BiasFeatureSteer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBiasFeatureSteer",
            display_name="Bias Feature Steer",
            category=MAIN,
            description=(
                "Steers images towards a class or towards target shares with bias features (after DiffLens, CVPR 2025; by "
                "place, with a class per image, in one U-Net call per step). Place it after LoRA and before FreeU. Several steers can "
                "follow each other, and any sampler can follow."
            ),
            search_aliases=[
                "difflens", "sparse autoencoder", "sae", "debias", "fair", "slider", "concept", "distribution", "diversity", "gender",
                "women", "same face",
            ],  # fmt: skip
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
                advanced(
                    io.Combo.Input(
                        "assign",
                        options=list(ASSIGN),
                        default=ASSIGN[0],
                        tooltip="With a target: how images get their classes. 'reading' changes the images as little as possible, by an "
                        "ADP's first reading. 'seeded' assigns at random from the seed. 'auto' does what the bias features say. Without an "
                        "ADP, classes always come from the seed.",
                    )
                ),
                rounding_seed(
                    "With a target: seed for rounding and for random classes. When the batch does not divide evenly, it decides which "
                    "class gets the extra image. -1 takes the sampler's seed."
                ),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="Gives every image a class by quotas, from Target Distribution. attribute and class_name "
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
                assigned_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, strength: float) -> bool | str:
        return checked_strength(cls, strength, -2.0, 2.0)

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        sae: SaeFile,
        bias_features: BiasFeaturesFile,
        attribute: str,
        class_name: str,
        target: TargetDistribution | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        adp, asyrp, assigned = widgets.get("adp"), widgets["rule"] == ASYRP, AssignedRuns()
        ledger = None if target is None else widgets.get("ledger")
        goal = target if target is not None else all_to(bias_features, attribute, class_name)
        settings = steer_settings(widgets, model, goal, strength=widgets["strength"], assign=widgets["assign"])
        steered = apply_steering(model, sae, bias_features, settings, adp, asyrp, assigned.add, ledger)
        report = steering_report(bias_features, settings, adp, asyrp)
        return io.NodeOutput(steered, report, assigned, ui=ui.PreviewText(report))


NODES = [BiasFeatureSteer]
