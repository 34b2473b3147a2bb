"""Find Neuron Path."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...host.labels.classifier import HostClassifier
from ...host.neuron_path.models import model_name, pixels_of, targets_of, vision_of
from ...host.neuron_path.search import found_paths
from ...methods.neuron_path.path_settings import SEARCHES, PathSettings
from ..core.sockets import NEURONS, schema
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
from .path_outputs import path_output, path_outputs


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
        return path_output(cls, found)


NODES = [FindNeuronPath]
