"""Neuron Gallery."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.neuron_path.neuron_gallery import FIT, NeuronRow, gallery_chart
from ...host.core.progress import host_progress
from ...host.neuron_path.models import pixels_of
from ...host.neuron_path.neuron_audit import class_neurons
from ...methods.neuron_path.neuron_gallery import GalleryRow, neuron_gallery
from ...methods.neuron_path.neuron_text import listed
from ...models.neuron_path import NeuronPathFile
from ..core.sockets import LAB, NeuronPaths, schema
from ..core.ui import as_image, shown
from .neuron_inputs import VISION, attribute_input


class NeuronGallery(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseNeuronGallery",
            display_name="Neuron Gallery",
            category=LAB,
            description=(
                "Shows the images at which single neurons of a vision transformer are most and least active. A heat map "
                "over each image shows where the neuron is active. The text gives its mean activation for each perceived class."
            ),
            search_aliases=["interpretability", "neuron", "activation", "feature visualization", "heat map", "maximally activating"],
            inputs=[
                io.Image.Input("images", tooltip="Images to choose from. More images show more."),
                *VISION.inputs(),
                attribute_input(" Leave it empty if neuron_path is connected."),
                io.String.Input(
                    "neurons",
                    default="",
                    multiline=True,
                    tooltip="Neurons to show, as layer:neuron separated by commas. Example: 0:17, 3:5. Numbers begin at 0.",
                ),
                io.String.Input("class_name", default="", tooltip="The class of neuron_path whose neurons are shown. Empty: all classes."),
                io.Int.Input(
                    "count",
                    default=12,
                    min=1,
                    max=64,
                    tooltip="Maximum number of neurons, one row each. The neurons that you typed come first.",
                ),
                io.Boolean.Input("overlay", default=True, tooltip="On: draw the heat map over the images. Off: show the images only."),
                NeuronPaths.Input(
                    "neuron_path", optional=True, tooltip="A neuron path whose neurons to show, from any node that outputs one."
                ),
            ],
            outputs=[
                io.Image.Output("gallery", display_name="gallery", tooltip="One row per neuron, as one image 960 pixels wide."),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="The mean activation for each class, and the numbers of the images shown. The first image of the batch is 0.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        attribute: str,
        neurons: str,
        class_name: str,
        count: int,
        overlay: bool,
        neuron_path: NeuronPathFile | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        if neuron_path is not None and not attribute.strip() and widgets.get("classifier") is not None:
            attribute = neuron_path.attribute
        net = VISION.take(widgets, attribute)
        pixels = pixels_of(net, images)
        chosen = listed(neurons, net.depth, net.neurons)
        if neuron_path is not None:
            path = class_neurons(neuron_path, net, class_name).path
            # The best of every layer first, then the second best.
            chosen += [
                (layer, int(path[c, layer, k])) for k in range(path.shape[2]) for layer in range(net.depth) for c in range(len(path))
            ]
        if not chosen:
            raise ValueError("no neurons are named: connect a neuron path, or write some as layer:neuron.")
        order = list(dict.fromkeys(chosen))[:count]
        gallery = neuron_gallery(net, pixels, order, FIT, host_progress("Neuron Gallery"))
        pictures = images[..., :3].float().cpu().numpy()
        rows = [_row(r, pictures) for r in gallery]
        chart = as_image(gallery_chart(rows, f"neurons of {VISION.name(widgets, net)}, labels of {net.name}", overlay))
        text = "\n".join(r.text() for r in gallery)
        return io.NodeOutput(chart, text, ui=shown(cls, chart, text))


def _row(r: GalleryRow, pictures: Any) -> NeuronRow:
    parts = [pictures[list(r.top)], pictures[list(r.bottom)], r.heat_top.numpy(), r.heat_bottom.numpy()]
    values = [[float(r.activation[i]) for i in ends] for ends in (r.top, r.bottom)]
    return NeuronRow(f"{r.layer}:{r.neuron}", *parts, *values, r.by_class)


NODES = [NeuronGallery]
