"""What all nodes on neuron paths ask for, alike: which model, which images, which classes, and how paths are scored."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...methods.neuron_path.path_settings import NODES, OBJECTIVES, PathSettings
from ..core.sockets import Classifier, ZeroShot

DEFAULT = PathSettings()
MOST_NEURONS = 64
"""Neurons of a layer that can be asked for."""


def vision_inputs() -> list[Any]:
    """A classifier with an attribute, or a CLIP vision model with a head: ``vision_of`` of ``host/neuron_path/models.py`` takes them."""
    return [
        Classifier.Input(
            "classifier",
            optional=True,
            tooltip="A vision transformer, from Load Attribute Classifier. Connect this, or clip_vision with zero_shot_head.",
        ),
        io.ClipVision.Input("clip_vision", optional=True, tooltip="CLIP's image encoder, from Load CLIP Vision. It needs zero_shot_head."),
        ZeroShot.Input("zero_shot_head", optional=True, tooltip="The classes that CLIP is to tell apart, from Zero-Shot Attribute Head."),
    ]


def attribute_input(more: str = "") -> Any:
    """Which head of the classifier."""
    return io.String.Input(
        "attribute",
        default="",
        tooltip=f"Attribute of the classifier. Empty: its only attribute. A zero-shot head has its own attribute.{more}",
    )


def target_input() -> Any:
    """Whose score it is: ``targets_of`` of ``host/neuron_path/models.py`` takes it."""
    return io.String.Input(
        "target",
        default="",
        tooltip="Class to explain. Empty: the class that the model reads in each image. Or one class for all images, or one per image, "
        "separated by commas.",
    )


def objective_input() -> Any:
    """Which number is explained."""
    return io.Combo.Input(
        "objective",
        options=list(OBJECTIVES),
        default=DEFAULT.objective,
        tooltip="Score to explain: the probability (as published), the log-probability, or the margin over the next best class. The "
        "probability says little about images of which the model is sure. The other two do not saturate.",
    )


def nodes_input() -> Any:
    """Points of the integral."""
    return io.Combo.Input(
        "nodes",
        options=list(NODES),
        default=DEFAULT.nodes,
        tooltip="Points of the integral. gauss-4 is exact to 1e-6. left-20 is the published rule, five times slower and 0.5% off.",
    )


def top_k_input() -> Any:
    """Neurons of a layer."""
    return io.Int.Input("top_k", default=DEFAULT.top_k, min=1, max=MOST_NEURONS, tooltip="Number of neurons per layer in the path.")


def shared_input() -> Any:
    """One path for all."""
    return io.Boolean.Input(
        "shared",
        default=False,
        tooltip="Off: one path per image. On: one path for all images, the one with the best mean score. Use images of one class.",
    )


def memory_input() -> Any:
    """Memory of a pass."""
    return io.Int.Input(
        "memory_mb",
        default=DEFAULT.memory_mb,
        min=16,
        max=2**20,
        tooltip="Memory for gradients, in megabytes. If you set less, the node is slower and finds the same path. It needs at least one "
        "image at one point, about 500 MB for ViT-L/14.",
    )
