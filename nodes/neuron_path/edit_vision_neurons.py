"""Edit Vision Neurons."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ...host.core.blocked import blocked
from ...host.neuron_path.edited_vision import ROWS, described, edited_classifier, edited_clip_vision, unedited_net
from ...host.neuron_path.models import pixels_of
from ...host.neuron_path.neuron_audit import class_neurons
from ...methods.neuron_path.neuron_edits import MEAN, OPERATIONS, ZERO, NeuronEdit, mean_values, union
from ...methods.neuron_path.neuron_text import named_neurons
from ..core.inputs import fixed_seed
from ..core.sockets import LAB, Classifier, NeuronPaths, schema
from .neuron_inputs import LAYERS

NOT_CONNECTED = "Edit Vision Neurons gives a {} only where one is connected to it: connect one, or use the other output."


class EditVisionNeurons(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseEditVisionNeurons",
            display_name="Edit Vision Neurons",
            category=LAB,
            description=(
                "Silences or scales chosen neurons of a classifier or of a CLIP vision model, or silences all others. Use it to "
                "repair a leak between perceived attributes. All other nodes accept the edited model. The model you connect stays as it "
                "is."
            ),
            search_aliases=["ablate", "silence", "prune", "intervention", "mend", "neuron", "clip vision", "unlearn", "steer"],
            inputs=[
                io.String.Input(
                    "neurons",
                    default="",
                    multiline=True,
                    tooltip="Neurons as layer:neuron, separated by commas, such as 0:17, 3:5. Both count from 0. They are added to "
                    "those of neuron_path.",
                ),
                io.String.Input("class_name", default="", tooltip="Class of neuron_path whose neurons are edited. Empty: all classes."),
                io.Combo.Input(
                    "operation",
                    options=list(OPERATIONS),
                    default=ZERO,
                    tooltip="zero: silence the neurons. scale: multiply them by the factor. mean: hold them at their mean over images. "
                    "keep-only: silence all others, each with the probability share.",
                ),
                io.Float.Input(
                    "factor",
                    default=2.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="For scale. 1 changes nothing, 0 silences, below 0 reverses the sign.",
                ),
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="For keep-only. The probability with which each of the other neurons is silenced.",
                ),
                io.Combo.Input(
                    "rows",
                    options=list(ROWS),
                    default=ROWS[0],
                    tooltip="Tokens at which the neurons are edited. 'neurons': only where paths run, which is the CLS token, or the "
                    "patches in mean-pooled models. 'all tokens': everywhere, which changes far more.",
                ),
                *LAYERS.inputs("edit"),
                fixed_seed("For keep-only. If share is below 1, it decides which neurons are silenced."),
                Classifier.Input(
                    "classifier",
                    optional=True,
                    tooltip="A vision transformer, from Load Attribute Classifier. Connect this or clip_vision.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="A CLIP vision model, from Load CLIP Vision."),
                NeuronPaths.Input(
                    "neuron_path",
                    optional=True,
                    tooltip="Neurons to edit, from Attribute Leakage Audit, Class Path or Prune Classifier Curve. If there is one path "
                    "per image, the most frequent neurons of each class are used.",
                ),
                io.Image.Input("images", optional=True, tooltip="For mean. Images over which the activations are averaged."),
            ],
            outputs=[
                Classifier.Output(
                    "edited",
                    display_name="classifier",
                    tooltip="The edited classifier, for label nodes, Attribute Histogram and all others.",
                ),
                io.ClipVision.Output(
                    "edited_vision",
                    display_name="CLIP vision",
                    tooltip="The edited model, for CLIP Vision Encode and every node that takes a CLIP_VISION.",
                ),
                io.String.Output("report", display_name="report", tooltip="Which neurons were edited, and where."),
            ],
        )

    @classmethod
    def execute(cls, neurons: str, class_name: str, operation: str, rows: str, **widgets: Any) -> io.NodeOutput:
        classifier, clip_vision, neuron_path = (widgets.get(name) for name in ("classifier", "clip_vision", "neuron_path"))
        net = unedited_net(classifier, clip_vision, "" if neuron_path is None or classifier is None else neuron_path.attribute)
        chosen = []
        if neuron_path is not None:
            chosen.append(union(class_neurons(neuron_path, net, class_name).path))
        if neurons.strip() or neuron_path is None:
            chosen.append(named_neurons(neurons, net.depth, net.neurons))
        first, last = LAYERS.take(widgets, net)
        layers = None if (first, last) == (0, net.depth - 1) else (first, last)
        images = widgets.get("images")
        means = mean_values(net, pixels_of(net, images)) if operation == MEAN and images is not None else None
        edit = NeuronEdit(torch.cat(chosen, 1), operation, widgets["factor"], means, widgets["share"], widgets["seed"], layers)
        report = described(edit, net, rows)
        return io.NodeOutput(
            edited_classifier(classifier, edit, rows, net) if classifier is not None else blocked(NOT_CONNECTED.format("classifier")),
            edited_clip_vision(clip_vision, edit, rows) if clip_vision is not None else blocked(NOT_CONNECTED.format("CLIP vision model")),
            report,
            ui=ui.PreviewText(report),
        )


NODES = [EditVisionNeurons]
