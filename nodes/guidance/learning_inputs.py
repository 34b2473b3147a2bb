"""Inputs and outputs of the nodes that learn directions."""

from __future__ import annotations

from comfy_api.latest import io

from ...charts.core.curves import learning_curves
from ...host.core.fit.session import AUTO, LEARNING_FOLDER
from ...host.guidance.learned_moves import LearnedMoves
from ...methods.guidance.fit_moves import FitSettings
from ..core.inputs import Widgets, fit_batch, fixed_seed
from ..core.sockets import Adp
from ..core.ui import as_image, shown

ALIASES = ["directions", "h-space", "textual inversion", "attribute distribution predictor", "steering", "balancing act"]


def fit_inputs(steps: int, batch: int, name: str) -> list[io.Input]:
    """Return the inputs of a fit, the same for both nodes."""
    return [
        io.String.Input(
            "site",
            default=AUTO,
            tooltip="Place in the U-Net where the directions act: 'auto' (the end of the level with the smallest maps), 'middle', or "
            "'output.N' (the output of up block N).",
        ),
        io.Int.Input(
            "fit_steps",
            default=steps,
            min=1,
            max=100_000,
            tooltip="Steps of the fit. A few hundred find the directions. More make them sharper.",
        ),
        fit_batch(batch),
        fixed_seed("Seed of the fit, and of the first batch if latents are sampled."),
        io.String.Input(
            "name",
            default=name,
            tooltip=f"Name under which the fit is saved in {LEARNING_FOLDER}. If the node is interrupted, queue the same graph again and "
            "it continues. With other settings it starts again.",
        ),
    ]


def fit_settings(widgets: Widgets) -> FitSettings:
    """Return the settings of the fit."""
    return FitSettings(steps=widgets["fit_steps"], batch=widgets["batch"], seed=widgets["seed"])


def learned_outputs() -> list[io.Output]:
    """Return the outputs of both nodes."""
    return [
        Adp.Output(
            "learned",
            display_name="ADP",
            tooltip="An ADP with the learned directions, at the sizes of the fit. For Calibrate ADP, or for Save ADP as it is.",
        ),
        io.String.Output("report", display_name="report", tooltip="What it was learned from, and how far the losses fell."),
        io.Image.Output("chart", display_name="chart", tooltip="Losses by step."),
    ]


def learned_output(cls: type[io.ComfyNode], learned: LearnedMoves, title: str) -> io.NodeOutput:
    """Return a node's outputs, and show report and chart on the node."""
    report, chart = "\n".join(learned.lines), as_image(learning_curves(learned.curve, title))
    return io.NodeOutput(learned.file, report, chart, ui=shown(cls, chart, report))
