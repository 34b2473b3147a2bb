"""Neuron Path Effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io

from ...charts.neuron_path.path_effects import EffectRow, path_effects_chart
from ...host.core.progress import host_progress
from ...host.neuron_path.models import logits_of, pixels_of
from ...methods.neuron_path.path_effects import DOUBLING, OPERATIONS, REMOVAL, PathEffect, PathEffectSettings, effect_table, path_effects
from ...methods.neuron_path.path_settings import PathSettings
from ...models.neuron_path import NeuronPathFile, check_network
from ...models.neuron_vit import NeuronVit
from ..core.inputs import fixed_seed
from ..core.sockets import LAB, NeuronPaths, schema
from ..core.ui import as_image, shown
from .neuron_inputs import VISION

MORE_PATHS, MORE_HEADS = 5, 3
OPERATION_TITLES = {REMOVAL: "path removed", DOUBLING: "path doubled"}


class NeuronPathEffect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseNeuronPathEffect",
            display_name="Neuron Path Effect",
            category=LAB,
            description=(
                "Removes or doubles the neurons of a neuron path, and measures how the classifier's reading changes. "
                "Random neurons serve as a control. A path that changes no more than random neurons explains nothing."
            ),
            search_aliases=["ablation", "intervention", "removal", "box plot", "faithfulness", "control", "neuron"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The images that the paths were found in, in the same order. For class paths, any images of these classes.",
                ),
                NeuronPaths.Input("neuron_path", tooltip="Neuron paths to measure, from Find Neuron Path, Baseline Paths or Class Path."),
                *VISION.inputs(),
                io.Int.Input(
                    "control_draws",
                    default=5,
                    min=0,
                    max=100,
                    tooltip="Number of random paths per image, as large as the first paths. Their mean is the control. 0 means none.",
                ),
                fixed_seed("Seed of the random paths and of the intervals."),
                *(
                    NeuronPaths.Input(
                        name,
                        optional=True,
                        tooltip="More paths to compare. They must have the same attribute, classes and images.",
                    )
                    for name in more_path_ids()
                ),
            ],
            outputs=[
                io.Image.Output("chart", display_name="chart", tooltip="Box plots of the change in probability, one box per method."),
                io.String.Output(
                    "report", display_name="report", tooltip="Scores, changes, labels changed and accuracy, with 95% intervals."
                ),
                io.Float.Output(
                    "removal",
                    display_name="removal",
                    tooltip="Mean change of the class's probability when the first paths are removed. It is below 0 if the paths "
                    "support the class.",
                ),
                io.Float.Output(
                    "flipped",
                    display_name="labels changed",
                    tooltip="Share of images whose label changes when the first paths are removed, 0 to 1.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, neuron_path: NeuronPathFile, control_draws: int, seed: int, **widgets: Any) -> io.NodeOutput:
        others = (widgets.get(name) for name in more_path_ids())
        files = [neuron_path, *(file for file in others if file is not None)]
        net = VISION.take(widgets, neuron_path.attribute)
        pixels = pixels_of(net, images)
        targets, paths = same_images(net, pixels, files)
        scores = PathSettings(objective=str(neuron_path.info.get("objective", PathSettings().objective)))
        settings = PathEffectSettings(scores, control_draws, seed)
        effects = path_effects(net, pixels, targets, paths, settings, progress=host_progress("Neuron Path Effect"))
        first = effects[0].figures(seed)
        caption = f"{len(pixels)} images, {VISION.name(widgets, net)}; accuracy: share of images that read as their path's class"
        chart = as_image(effects_picture(f"what neuron paths of {neuron_path.attribute} do", effects, caption, seed))
        report = f"{caption}\n{effect_table(effects, seed)}"
        return io.NodeOutput(chart, report, first["change"].mean, first["flipped"].mean, ui=shown(cls, chart, report))


def more_path_ids() -> list[str]:
    """Return the ids of the sockets for further paths."""
    return [f"neuron_path_{i + 2}" for i in range(MORE_PATHS)]


def same_images(net: NeuronVit, pixels: torch.Tensor, files: Sequence[NeuronPathFile]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return each image's class, and its path by every file.

    Classes int64 [B]; every file has a name of its own.

    Classes are those of the first file with a path for each image; of class paths alone, what the model reads. Raises ValueError, in a
    sentence, for files of another network, attribute or classes.
    """
    for file in files:
        check_network(file, net)
        if file.attribute != files[0].attribute:
            raise ValueError(f"paths of '{files[0].attribute}' and of '{file.attribute}' are connected: compare paths of one attribute.")
    own = next((file for file in files if not file.shared), None)
    if own is None:
        classes = [net.labels[i] for i in logits_of(net, pixels).argmax(1).tolist()]
    else:
        own.for_images([""] * len(pixels))
        classes = list(own.target)
    if any(not file.shared and list(file.target) != classes for file in files):
        raise ValueError("these paths explain different classes of the same images: find all of them with one target.")
    paths: dict[str, torch.Tensor] = {}
    for file in files:
        name, number = file.method, 2
        while name in paths:
            name, number = f"{file.method} {number}", number + 1
        paths[name] = file.for_images(classes)
    return torch.tensor([net.labels.index(c) for c in classes]), paths


def effects_picture(title: str, effects: Sequence[PathEffect], caption: str, seed: int) -> Any:
    """Draw box plots of the effects, a panel per operation."""
    panels = []
    for operation in OPERATIONS:
        rows = []
        for e in (e for e in effects if e.operation == operation):
            a = e.figures(seed)["accuracy"]
            rows.append(EffectRow(e.method, e.change.numpy(), (a.mean, a.low, a.high)))
        panels.append((OPERATION_TITLES[operation], rows))
    return path_effects_chart(title, panels, caption)


NODES = [NeuronPathEffect]
