"""Find Neuron Path."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...host.neuron_path.models import pixels_of, targets_of
from ...host.neuron_path.search import search_paths
from ..core.sockets import LAB, schema
from .neuron_inputs import PATH, VISION, attribute_input, target_input
from .path_outputs import path_output, path_outputs


class FindNeuronPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFindNeuronPath",
            display_name="Find Neuron Path",
            category=LAB,
            description=(
                "Finds which neurons of a vision transformer, layer by layer, decide how it labels an image (Neuron Path, ICLR "
                "2025). The path explains the classifier, not the people in the picture. Compare it with Baseline Paths before you trust "
                "it."
            ),
            search_aliases=["neuron", "path", "attribution", "interpretability", "explain", "vit", "clip vision", "circuit"],
            inputs=[
                io.Image.Input("images", tooltip="Images whose labels are explained. Each image gets its own path, unless shared is on."),
                *VISION.inputs(),
                attribute_input(),
                target_input(),
                PATH.search(
                    "How the candidates of a layer are scored. clean-layer: the layer is as it is. paper: the whole layer is "
                    "scaled, as published. shortlist: the best candidates of both are scored exactly, which is many times slower."
                ),
                PATH.objective(),
                PATH.nodes(),
                PATH.top_k(),
                PATH.shortlist(),
                PATH.shared(),
                PATH.memory(),
            ],
            outputs=path_outputs("What was found"),
        )

    @classmethod
    def execute(cls, images: torch.Tensor, attribute: str, target: str, **widgets: Any) -> io.NodeOutput:
        net = VISION.take(widgets, attribute)
        pixels = pixels_of(net, images)
        targets = targets_of(net, pixels, target)
        return path_output(cls, search_paths(net, pixels, targets, PATH.take(widgets), VISION.name(widgets, net)))


NODES = [FindNeuronPath]
