"""Baseline Paths."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...host.neuron_path.models import pixels_of, targets_of
from ...host.neuron_path.search import baseline_paths
from ...methods.neuron_path.neuron_baselines import BASELINES, KNOWLEDGE
from ..core.inputs import fixed_seed
from ..core.sockets import LAB, schema
from .neuron_inputs import PATH, VISION, attribute_input, target_input
from .path_outputs import path_output, path_outputs


class BaselinePaths(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBaselinePaths",
            display_name="Baseline Paths",
            category=LAB,
            description=(
                "Chooses neuron paths layer by layer, with each layer on its own, to check Find Neuron Path: knowledge neurons, "
                "gradient times activation, influence pattern, activation, and random neurons. They explain the classifier, by perceived "
                "classes."
            ),
            search_aliases=["neuron", "knowledge neurons", "influence pattern", "integrated gradients", "random control", "compare"],
            inputs=[
                io.Image.Input("images", tooltip="Images whose labels are explained. Use the same images as for Find Neuron Path."),
                *VISION.inputs(),
                attribute_input(),
                target_input(),
                io.Combo.Input(
                    "method",
                    options=list(BASELINES),
                    default=KNOWLEDGE,
                    tooltip="How neurons are chosen. knowledge-neurons and gradient-activation find the neurons whose removal changes "
                    "most. random is the control: all others must do better.",
                ),
                PATH.objective(),
                PATH.nodes(),
                PATH.top_k(),
                PATH.shared(),
                fixed_seed("Seed of the random paths. The other methods do not use it."),
                PATH.memory(),
            ],
            outputs=path_outputs("What was chosen"),
        )

    @classmethod
    def execute(cls, images: torch.Tensor, attribute: str, target: str, method: str, seed: int, **widgets: Any) -> io.NodeOutput:
        net = VISION.take(widgets, attribute)
        pixels = pixels_of(net, images)
        targets = targets_of(net, pixels, target)
        return path_output(cls, baseline_paths(net, pixels, targets, method, PATH.take(widgets), seed, VISION.name(widgets, net)))


NODES = [BaselinePaths]
