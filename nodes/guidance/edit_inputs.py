"""Inputs that both guidance nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core.versions import advanced
from ...methods.core.batch_run import ASSIGN
from ...methods.guidance.moves import DIRECTIONS
from ...methods.guidance.run import MODES, GuidanceSettings
from ..core.inputs import WINDOW, Widgets, rounding_seed_of, rows_input
from ..core.sockets import Adp, Target


class GuidanceInputs:
    """How guidance edits a batch."""

    def inputs(self) -> list[io.Input]:
        """List the ADP, the target and the settings of the edit."""
        return [
            Adp.Input("adp", tooltip="The ADP (attribute distribution predictor) of this model, from Load ADP."),
            Target.Input("target", tooltip="The shares to reach, from Target Distribution."),
            advanced(
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip="'quota' assigns every image a class and moves it there. 'chi-square' and 'kl' are the paper's losses on the "
                    "soft mean of the batch. Their strength has another scale, which you must find for each model. They need large "
                    "batches.",
                )
            ),
            io.Float.Input(
                "strength",
                default=1.0,
                min=0.0,
                max=100.0,
                step=0.01,
                tooltip="Factor of the edit. 1 is as calibrated. 0 is off, bit for bit. It multiplies the calibrated size, which is in "
                "units of the norm of h.",
            ),
            *WINDOW.inputs("guidance"),
            rows_input(),
            advanced(
                io.Combo.Input(
                    "direction",
                    options=list(DIRECTIONS),
                    default=DIRECTIONS[0],
                    tooltip="'calibrated' uses the directions that brought most images to their class in calibration. Others by name, if "
                    "the file holds them: 'learned' and 'learned-prompts' (fitted by their effect), 'mean-difference', "
                    "'linear-discriminant' and their 'sum' (computed from labelled features), 'prompt-contrast' (from pairs of prompts). "
                    "'adp-gradient' is the predictor's own gradient. It needs no calibration, and may change the reading more than the "
                    "image.",
                )
            ),
            advanced(
                io.Combo.Input(
                    "assign",
                    options=list(ASSIGN),
                    default=ASSIGN[0],
                    tooltip="How images get their classes. 'reading' changes the images as little as possible, by the first reading. "
                    "'seeded' assigns at random from the seed. 'auto' does what the ADP file says.",
                )
            ),
        ]

    def take(self, widgets: Widgets, model: io.Model.Type) -> GuidanceSettings:
        """Return the settings, with the window in the model's own noise levels."""
        names = ("target", "mode", "strength", "rows", "direction", "assign")
        chosen = {name: widgets[name] for name in names}
        return GuidanceSettings(**chosen, seed=rounding_seed_of(widgets), **WINDOW.take(widgets, model))


GUIDANCE_EDIT = GuidanceInputs()
