"""Class Path."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.core.sheet import stacked
from ...charts.neuron_path.class_similarity import class_similarity_chart
from ...host.neuron_path.models import pixels_of
from ...host.neuron_path.search import class_path
from ...methods.neuron_path.class_path import DRAWS, MODE, RULES, agreement, layer_entropy, likeness, path_similarity, path_stability
from ...models.neuron_path import NeuronPathFile
from ..core.inputs import fixed_seed
from ..core.sockets import LAB, NeuronPaths, schema
from ..core.ui import as_image, shown
from .neuron_inputs import VISION
from .path_outputs import path_lines, paths_picture


class ClassPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseClassPath",
            display_name="Class Path",
            category=LAB,
            description=(
                "Combines the neuron paths of many images into one path per perceived class (Neuron Path, ICLR 2025). It tests "
                "how far images agree, whether classes differ by more than chance, and how stable the path is."
            ),
            search_aliases=["neuron", "path", "class", "stability", "similarity", "jaccard", "bootstrap"],
            inputs=[
                NeuronPaths.Input(
                    "neuron_path",
                    tooltip="One path per image, from Find Neuron Path or Baseline Paths with shared off. Use 20 images or more.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The images of the paths, in the same order. With them and the model, the node measures the scores of the "
                    "class paths.",
                ),
                *VISION.inputs(),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default=MODE,
                    tooltip="'mode' takes the neurons that most images choose. 'mean score' searches for the path with the best mean "
                    "score over the images of the class; it needs images and model.",
                ),
                io.Int.Input(
                    "draws",
                    default=DRAWS,
                    min=20,
                    max=10000,
                    tooltip="How many permutations of the classes and resamples of the images are made for the tests against chance.",
                ),
                fixed_seed("Seed of the permutations and resamples."),
            ],
            outputs=[
                NeuronPaths.Output("class_path", display_name="class path", tooltip="One path per class, for edits and the audit."),
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="The paths of the classes over those of their images, and how similar the classes are.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The paths, their stability, the agreement by layer, and the tests against chance.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, neuron_path: NeuronPathFile, rule: str, draws: int, seed: int, images: torch.Tensor | None = None, **widgets: Any
    ) -> io.NodeOutput:
        if neuron_path.shared:
            raise ValueError("these are paths of classes already, and say nothing of single images: connect paths found with shared off.")
        net = pixels = None
        if images is not None or VISION.connected(widgets):
            net = VISION.take(widgets, neuron_path.attribute)
            if images is None:
                raise ValueError("a model is connected, and no images to measure the class path in: connect those of the paths too.")
            pixels = pixels_of(net, images)
        made = class_path(neuron_path, rule, net, pixels)
        chosen = {c: made.path[i] for i, c in enumerate(made.target)}
        report, picture = class_report(neuron_path, made, rule, draws, seed), paths_picture(neuron_path, chosen, made)
        if len(chosen) > 1:
            note = "cosine of the shares of images that choose each neuron: 0 = no neuron in common"
            picture = stacked([picture, class_similarity_chart(list(chosen), path_similarity(neuron_path).numpy(), note)])
        chart = as_image(picture)
        return io.NodeOutput(made, chart, report, ui=shown(cls, chart, report))


def class_report(paths: NeuronPathFile, made: NeuronPathFile, rule: str, draws: int, seed: int) -> str:
    """Describe the paths of classes.

    With their stability, agreement and entropy by layer, and what chance would give.
    """
    lines = [f"class paths by {rule}", *path_lines(made, {c: made.path[i] for i, c in enumerate(made.target)})]
    for i, label in enumerate(made.target):
        own = paths.of_class(label).path
        lines.append(f"{label}, {len(own)} image(s)")
        lines.append(f"  agreement by layer: {' '.join(f'{x:.0%}' for x in agreement(own))}")
        lines.append(f"  entropy by layer, bits: {' '.join(f'{x:.2f}' for x in layer_entropy(own))}")
        if len(own) > 1:
            stability = path_stability(own, made.path[i], draws, seed).mean(1)
            lines.append(f"  stability by layer over {draws} resamples: {' '.join(f'{x:.0%}' for x in stability)}")
    alike = likeness(paths.path, paths.target, paths.neurons, draws, seed)
    lines.append(alike.text() if alike else "one image of each class: nothing can be said of how alike images are")
    if len(made.target) > 1:
        table = path_similarity(paths)
        for i, a in enumerate(made.target):
            pairs = (f"{b} {table[i, j]:.2f}" for j, b in enumerate(made.target) if j != i)
            lines.append(f"similarity of {a} to: {', '.join(pairs)}")
    else:
        lines.append("one class only: nothing can be said of how classes differ")
    return "\n".join(lines)


NODES = [ClassPath]
