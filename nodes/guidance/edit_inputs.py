"""Inputs that both guidance nodes share."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...host.core.patch import window_sigmas
from ...methods.guidance.run import DIRECTIONS, MODES, GuidanceSettings
from ..core.patch_inputs import rows_input, window_inputs
from ..core.sockets import Adp, Target

ASSIGN = ("auto", "reading", "seeded")


def guidance_inputs() -> list[Any]:
    return [
        Adp.Input("adp", tooltip="The ADP (attribute distribution predictor) of this model, from Load ADP."),
        Target.Input("target", tooltip="The shares to reach, from Target Distribution or Joint Target."),
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="'quota' assigns every image a class and moves it there. 'chi-square' and 'kl' are the paper's losses on the soft "
            "mean of the batch. Their strength has another scale, which you must find for each model. They need large batches.",
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
        *window_inputs("guidance"),
        rows_input(),
        io.Combo.Input(
            "direction",
            options=list(DIRECTIONS),
            default=DIRECTIONS[0],
            tooltip="'calibrated' uses the directions that brought most images to their class in calibration. Others by name, if the "
            "file holds them: 'learned' and 'learned-prompts' (fitted by their effect), 'mean-difference', 'linear-discriminant' and "
            "their 'sum' (computed from labelled features), 'prompt-contrast' (from pairs of prompts). 'adp-gradient' is the predictor's "
            "own gradient. It needs no calibration, and may change the reading more than the image.",
        ),
        io.Combo.Input(
            "assign",
            options=list(ASSIGN),
            default=ASSIGN[0],
            tooltip="How images get their classes. 'reading' changes the images as little as possible, by the first reading. 'seeded' "
            "assigns at random from the seed. 'auto' does what the ADP file says.",
        ),
    ]


def guidance_settings(
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
