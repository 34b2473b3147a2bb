"""Inputs of the nodes on neuron paths: the model, its classes, the layers, and how paths are scored."""

from __future__ import annotations

from dataclasses import fields

from comfy_api.latest import io

from ...host.core.versions import advanced
from ...host.neuron_path.models import model_name, vision_of
from ...methods.neuron_path.path_settings import NODES, OBJECTIVES, SEARCHES, PathSettings
from ...models.neuron_vit import NeuronVit
from ..core.inputs import Widgets
from ..core.sockets import Classifier, ZeroShot

DEFAULT = PathSettings()
MOST_NEURONS = 64
"""Upper limit of the neurons per layer in a path."""
LAST_LAYER = -1
"""Value of last_layer that stands for the last layer of the model."""


class VisionInputs:
    """A classifier, or a CLIP vision model with a zero-shot head."""

    def inputs(self) -> list[io.Input]:
        """List the sockets of the model."""
        return [
            Classifier.Input(
                "classifier",
                optional=True,
                tooltip="A vision transformer, from Load Attribute Classifier. Connect this, or clip_vision with zero_shot_head.",
            ),
            io.ClipVision.Input(
                "clip_vision", optional=True, tooltip="CLIP's image encoder, from Load CLIP Vision. It needs zero_shot_head."
            ),
            ZeroShot.Input(
                "zero_shot_head", optional=True, tooltip="The classes that CLIP is to tell apart, from Zero-Shot Attribute Head."
            ),
        ]

    def connected(self, widgets: Widgets) -> bool:
        """Return whether a model is connected."""
        return widgets.get("classifier") is not None or widgets.get("clip_vision") is not None

    def take(self, widgets: Widgets, attribute: str) -> NeuronVit:
        """Return the vision transformer with its head for an attribute.

        Raises ValueError for no or two models.
        """
        return vision_of(widgets.get("classifier"), widgets.get("clip_vision"), widgets.get("zero_shot_head"), attribute)

    def name(self, widgets: Widgets, net: NeuronVit) -> str:
        """Return the model's name for reports."""
        return model_name(net, widgets.get("classifier"))


class PathInputs:
    """How neuron paths are found and scored."""

    def search(self, tooltip: str) -> io.Input:
        """Return the choice of the search."""
        return advanced(io.Combo.Input("search", options=list(SEARCHES), default=DEFAULT.search, tooltip=tooltip))

    def objective(self) -> io.Input:
        """Return the choice of the score that paths explain."""
        return io.Combo.Input(
            "objective",
            options=list(OBJECTIVES),
            default=DEFAULT.objective,
            tooltip="Score to explain: the probability (as published), the log-probability, or the margin over the next best class. The "
            "probability says little about images of which the model is sure. The other two do not saturate.",
        )

    def nodes(self) -> io.Input:
        """Return the choice of the points of the integral."""
        return advanced(
            io.Combo.Input(
                "nodes",
                options=list(NODES),
                default=DEFAULT.nodes,
                tooltip="Points of the integral. gauss-4 is exact to 1e-6. left-20 is the published rule, five times slower and 0.5% off.",
            )
        )

    def top_k(self) -> io.Input:
        """Return the number of neurons per layer."""
        return io.Int.Input("top_k", default=DEFAULT.top_k, min=1, max=MOST_NEURONS, tooltip="Number of neurons per layer in the path.")

    def shortlist(self) -> io.Input:
        """Return the number of candidates that the search 'shortlist' scores exactly."""
        return advanced(
            io.Int.Input(
                "shortlist",
                default=DEFAULT.shortlist,
                min=1,
                max=64,
                tooltip="Number of candidates of each kind that the search 'shortlist' scores exactly. The other searches do not use it.",
            )
        )

    def shared(self) -> io.Input:
        """Return the choice between a path per image and one for all."""
        return io.Boolean.Input(
            "shared",
            default=False,
            tooltip="Off: one path per image. On: one path for all images, the one with the best mean score. Use images of one class.",
        )

    def memory(self) -> io.Input:
        """Return the memory for gradients."""
        return io.Int.Input(
            "memory_mb",
            default=DEFAULT.memory_mb,
            min=16,
            max=2**20,
            tooltip="Memory for gradients, in megabytes. If you set less, the node is slower and finds the same path. It needs at least "
            "one image at one point, about 500 MB for ViT-L/14.",
        )

    def take(self, widgets: Widgets) -> PathSettings:
        """Return the settings; those that a node does not ask for stay at their defaults."""
        return PathSettings(**{field.name: widgets[field.name] for field in fields(PathSettings) if field.name in widgets})


class LayerInputs:
    """The layers of a vision transformer that a node acts on."""

    def inputs(self, verb: str) -> list[io.Input]:
        """List first_layer and last_layer. ``verb`` says what is done to the layers."""
        return [
            io.Int.Input("first_layer", default=0, min=0, max=1000, tooltip=f"First layer to {verb}. The first layer of the model is 0."),
            io.Int.Input(
                "last_layer",
                default=LAST_LAYER,
                min=LAST_LAYER,
                max=1000,
                tooltip=f"Last layer to {verb}. -1 is the last layer of the model.",
            ),
        ]

    def take(self, widgets: Widgets, net: NeuronVit) -> tuple[int, int]:
        """Return the first and the last layer.

        Raises ValueError for layers that the model does not have.
        """
        first, last = widgets["first_layer"], widgets["last_layer"]
        last = net.depth - 1 if last == LAST_LAYER else last
        if not first <= last < net.depth:
            raise ValueError(f"this model has the layers 0 to {net.depth - 1}, and {first} to {last} were asked for: choose among them.")
        return first, last


VISION = VisionInputs()
PATH = PathInputs()
LAYERS = LayerInputs()


def attribute_input(more: str = "") -> io.Input:
    """Return the attribute whose head of the classifier is used.

    ``more`` is a sentence to add.
    """
    return io.String.Input(
        "attribute",
        default="",
        tooltip=f"Attribute of the classifier. Empty: its only attribute. A zero-shot head has its own attribute.{more}",
    )


def target_input() -> io.Input:
    """Return the classes whose score is explained."""
    return io.String.Input(
        "target",
        default="",
        tooltip="Class to explain. Empty: the class that the model reads in each image. Or one class for all images, or one per image, "
        "separated by commas.",
    )
