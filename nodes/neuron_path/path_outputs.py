"""Charts and reports of neuron paths that several nodes show."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ...charts.neuron_path.paths import PathPanel, neuron_path_chart
from ...methods.neuron_path.class_path import agreement, mode_path
from ...methods.neuron_path.path_settings import PROBABILITY
from ...models.neuron_path import NeuronPathFile
from ..core.sockets import NeuronPaths
from ..core.ui import as_image, shown

SURE = 0.99
"""Probability above which the score of an image, under the objective "probability", says little."""


def path_outputs(what: str) -> list[io.Output]:
    """List the outputs of a node that finds paths.

    Paths, their picture, a report and the mean joint score. ``what``: how a report begins.
    """
    return [
        NeuronPaths.Output(
            "neuron_path",
            display_name="neuron path",
            tooltip="The paths with their scores, for Class Path, Save Neuron Path and the audit nodes.",
        ),
        io.Image.Output(
            "chart",
            display_name="chart",
            tooltip="A column per layer, a dot per neuron, a line per image. The share of images that agree stands below each column.",
        ),
        io.String.Output(
            "report", display_name="report", tooltip=f"{what}: scores, and the most frequent path of each class as layer:neuron."
        ),
        io.Float.Output(
            "joint",
            display_name="joint score",
            tooltip="Mean joint attribution score, in the paper's product form. It can exceed 1. The report says what removing the "
            "neurons changes.",
        ),
    ]


def path_output(cls: type[io.ComfyNode], paths: NeuronPathFile) -> io.NodeOutput:
    """Return the outputs of Find Neuron Path and Baseline Paths."""
    chosen = {c: mode_path(paths.of_class(c).path) for c in paths.classes}
    chart, report = as_image(paths_picture(paths, chosen, paths)), "\n".join(path_lines(paths, chosen))
    return io.NodeOutput(paths, chart, report, float(paths.joint.mean()), ui=shown(cls, chart, report))


def paths_picture(paths: NeuronPathFile, chosen: dict[str, torch.Tensor], scored: NeuronPathFile) -> np.ndarray:
    """Draw paths, a panel for each class, those with most images first.

    ``scored``: the paths whose scores are stated.

    ``scored``: whose scores are told of the class.
    """
    panels = []
    for label in sorted(paths.classes, key=lambda c: -paths.target.count(c)):
        own, of = paths.of_class(label), scored.of_class(label)
        joint, additive = float(of.joint.mean()), float(of.additive.mean())
        note = f"joint score {joint:.3g}; {removal_text(of)}" if joint == joint and additive == additive else ""
        parts = own.path.numpy(), own.contribution.numpy(), chosen[label].numpy(), agreement(own.path).numpy()
        panels.append(PathPanel(label, *parts, note=note))
    caption = f"{paths.method} in {paths.info.get('model') or 'a model'}, by the {paths.info.get('objective', 'objective')}"
    return neuron_path_chart(f"neuron paths of {paths.attribute}", paths.neurons, panels, caption)


def removal_text(paths: NeuronPathFile) -> str:
    """Describe the additive part."""
    name = paths.info.get("objective", "objective")
    taken, total = float(paths.additive.mean()), float(paths.objective.mean())
    return f"removing the path takes {taken:.3g} of the {name} {total:.3g}, if later layers keep their values"


def path_lines(paths: NeuronPathFile, chosen: dict[str, torch.Tensor]) -> list[str]:
    """Describe a file, each class's path, and images that are too sure."""
    lines = [paths.text()]
    lines += [f"{label}: {as_pairs(path)}" for label, path in chosen.items()]
    sure = int((paths.objective > SURE).sum()) if paths.info.get("objective") == PROBABILITY else 0
    if sure > paths.images / 2:
        lines.append(
            f"WARNING: the model is sure of {sure} of {paths.images} image(s) (probability above {SURE:g}), of which this objective tells "
            "little: choose margin or log-probability"
        )
    return lines


def as_pairs(path: torch.Tensor) -> str:
    """Write a path [L, K] as layer:neuron, as users type neurons."""
    return ", ".join(f"{layer}:{int(j)}" for layer, row in enumerate(path) for j in row)
