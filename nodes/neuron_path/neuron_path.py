"""Find Neuron Path and Baseline Paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ...charts.neuron_path.paths import PathPanel, neuron_path_chart
from ...host.labels.classifier import HostClassifier
from ...host.neuron_path.models import model_name, pixels_of, targets_of, vision_of
from ...host.neuron_path.search import baseline_paths, found_paths
from ...methods.neuron_path.class_path import agreement, mode_path
from ...methods.neuron_path.neuron_baselines import BASELINES, KNOWLEDGE
from ...methods.neuron_path.path_settings import PROBABILITY, SEARCHES, PathSettings
from ...models.neuron_path import NeuronPathFile
from ..core.shared_inputs import fixed_seed
from ..core.sockets import NEURONS, NeuronPaths, schema
from ..core.ui import as_image, shown
from .neuron_inputs import (
    DEFAULT,
    attribute_input,
    memory_input,
    nodes_input,
    objective_input,
    shared_input,
    target_input,
    top_k_input,
    vision_inputs,
)

SURE = 0.99
"""Probability above which the score of an image, under the objective "probability", says little."""


def path_outputs(what: str) -> list[Any]:
    """Paths, their picture, a report and the mean joint score. ``what``: how a report begins."""
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


class FindNeuronPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFindNeuronPath",
            display_name="Find Neuron Path",
            category=NEURONS,
            description=(
                "Finds which neurons of a vision transformer, layer by layer, decide how it labels an image (Neuron Path, ICLR "
                "2025). The path explains the classifier, not the people in the picture. Compare it with Baseline Paths before you trust "
                "it."
            ),
            search_aliases=["neuron", "path", "attribution", "interpretability", "explain", "vit", "clip vision", "circuit"],
            inputs=[
                io.Image.Input("images", tooltip="Images whose labels are explained. Each image gets its own path, unless shared is on."),
                *vision_inputs(),
                attribute_input(),
                target_input(),
                io.Combo.Input(
                    "search",
                    options=list(SEARCHES),
                    default=DEFAULT.search,
                    tooltip="How the candidates of a layer are scored. clean-layer: the layer is as it is. paper: the whole layer is "
                    "scaled, as published. shortlist: the best candidates of both are scored exactly, which is many times slower.",
                ),
                objective_input(),
                nodes_input(),
                top_k_input(),
                io.Int.Input(
                    "shortlist",
                    default=DEFAULT.shortlist,
                    min=1,
                    max=64,
                    tooltip="Number of candidates of each kind that the search 'shortlist' scores exactly. The other searches do not "
                    "use it.",
                ),
                shared_input(),
                memory_input(),
            ],
            outputs=path_outputs("What was found"),
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        attribute: str,
        target: str,
        search: str,
        objective: str,
        nodes: str,
        top_k: int,
        shortlist: int,
        shared: bool,
        memory_mb: int,
        classifier: HostClassifier | None = None,
        clip_vision: Any = None,
        zero_shot_head: Any = None,
    ) -> io.NodeOutput:
        net = vision_of(classifier, clip_vision, zero_shot_head, attribute)
        pixels = pixels_of(net, images)
        settings = PathSettings(search, nodes, objective, top_k, shortlist, shared, memory_mb)
        found = found_paths(net, pixels, targets_of(net, pixels, target), settings, model_name(net, classifier))
        return answer(cls, found)


class BaselinePaths(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBaselinePaths",
            display_name="Baseline Paths",
            category=NEURONS,
            description=(
                "Chooses neuron paths layer by layer, with each layer on its own, to check Find Neuron Path: knowledge neurons, "
                "gradient times activation, influence pattern, activation, and random neurons. They explain the classifier, by perceived "
                "classes."
            ),
            search_aliases=["neuron", "knowledge neurons", "influence pattern", "integrated gradients", "random control", "compare"],
            inputs=[
                io.Image.Input("images", tooltip="Images whose labels are explained. Use the same images as for Find Neuron Path."),
                *vision_inputs(),
                attribute_input(),
                target_input(),
                io.Combo.Input(
                    "method",
                    options=list(BASELINES),
                    default=KNOWLEDGE,
                    tooltip="How neurons are chosen. knowledge-neurons and gradient-activation find the neurons whose removal changes "
                    "most. random is the control: all others must do better.",
                ),
                objective_input(),
                nodes_input(),
                top_k_input(),
                shared_input(),
                fixed_seed("Seed of the random paths. The other methods do not use it."),
                memory_input(),
            ],
            outputs=path_outputs("What was chosen"),
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        attribute: str,
        target: str,
        method: str,
        objective: str,
        nodes: str,
        top_k: int,
        shared: bool,
        seed: int,
        memory_mb: int,
        classifier: HostClassifier | None = None,
        clip_vision: Any = None,
        zero_shot_head: Any = None,
    ) -> io.NodeOutput:
        net = vision_of(classifier, clip_vision, zero_shot_head, attribute)
        pixels = pixels_of(net, images)
        settings = PathSettings(nodes=nodes, objective=objective, top_k=top_k, shared=shared, memory_mb=memory_mb)
        targets = targets_of(net, pixels, target)
        return answer(cls, baseline_paths(net, pixels, targets, method, settings, seed, model_name(net, classifier)))


def answer(cls: type[Any], found: NeuronPathFile) -> io.NodeOutput:
    """What Find Neuron Path and Baseline Paths give back."""
    bold = {c: mode_path(found.of_class(c).path) for c in found.classes}
    chart, report = as_image(drawn(found, bold, found)), "\n".join(path_lines(found, bold))
    return io.NodeOutput(found, chart, report, float(found.joint.mean()), ui=shown(cls, chart, report))


def drawn(found: NeuronPathFile, bold: dict[str, torch.Tensor], scored: NeuronPathFile) -> np.ndarray:
    """The picture of paths: a panel for each class, those with most images first. ``scored``: whose scores are told of the class."""
    panels = []
    for label in sorted(found.classes, key=lambda c: -found.target.count(c)):
        own, of = found.of_class(label), scored.of_class(label)
        joint, additive = float(of.joint.mean()), float(of.additive.mean())
        note = f"joint score {joint:.3g}; {what_is_taken(of)}" if joint == joint and additive == additive else ""
        parts = own.path.numpy(), own.contribution.numpy(), bold[label].numpy(), agreement(own.path).numpy()
        panels.append(PathPanel(label, *parts, note=note))
    caption = f"{found.method} in {found.info.get('model') or 'a model'}, by the {found.info.get('objective', 'objective')}"
    return neuron_path_chart(f"neuron paths of {found.attribute}", found.neurons, panels, caption)


def what_is_taken(found: NeuronPathFile) -> str:
    """The additive part in words."""
    name = found.info.get("objective", "objective")
    return f"removing the path, all else held, takes {float(found.additive.mean()):.3g} of the {name} {float(found.objective.mean()):.3g}"


def path_lines(found: NeuronPathFile, bold: dict[str, torch.Tensor]) -> list[str]:
    """What a file says of itself, each class's path, and a warning where its images are too sure."""
    lines = [found.text()]
    lines += [f"{label}: {as_pairs(path)}" for label, path in bold.items()]
    sure = int((found.objective > SURE).sum()) if found.info.get("objective") == PROBABILITY else 0
    if sure > found.images / 2:
        lines.append(
            f"WARNING: the model is sure of {sure} of {found.images} image(s) (probability above {SURE:g}), of which this objective tells "
            "little: choose margin or log-probability"
        )
    return lines


def as_pairs(path: torch.Tensor) -> str:
    """A path [L, K] as layer:neuron, the form in which neurons are typed."""
    return ", ".join(f"{layer}:{int(j)}" for layer, row in enumerate(path) for j in row)


NODES = [FindNeuronPath, BaselinePaths]
