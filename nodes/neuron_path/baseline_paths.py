"""Baseline Paths."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...host.neuron_path.models import model_name, pixels_of, targets_of, vision_of
from ...host.neuron_path.search import baseline_paths
from ...methods.neuron_path.neuron_baselines import BASELINES, KNOWLEDGE
from ...methods.neuron_path.path_settings import PathSettings
from ..core.shared_inputs import fixed_seed
from ..core.sockets import NEURONS, schema
from .neuron_inputs import (
    attribute_input,
    memory_input,
    nodes_input,
    objective_input,
    shared_input,
    target_input,
    top_k_input,
    vision_inputs,
)
from .path_outputs import path_output, path_outputs


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
        return path_output(cls, baseline_paths(net, pixels, targets, method, settings, seed, model_name(net, classifier)))


NODES = [BaselinePaths]
