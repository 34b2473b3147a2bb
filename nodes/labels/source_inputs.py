"""Inputs and outputs of the nodes that label a feature set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...host.labels.labelling import ImageSource, label_images
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet, joined
from ...methods.labels.regions import Region, parse_box
from ..core.sockets import Features, Labels

PERCEIVED = "Labels describe how something looks in a picture. They say nothing about who a person is."
CLASSES_TIP = "Attributes and their classes, one attribute per line, as attribute: class=phrase|phrase, class=phrase. You choose the names."
CLIP_CLASSES = "eyeglasses: yes=eyeglasses|glasses, no=uncovered eyes|bare eyes"
CLIP_TEMPLATES = "a photo of a person with {}\na portrait of a person with {}\na close-up photo of a face with {}"


def features_input() -> io.Input:
    """Return the socket for the feature set."""
    return Features.Input("features", tooltip="The feature set whose pictures are labelled, from Record Features or Load Features.")


def region_inputs() -> list[io.Input]:
    """List crop and mask: the part of every picture that is read."""
    return [
        io.String.Input(
            "crop",
            default="",
            tooltip="Part of every picture to read: left, top, width, height, as shares of the picture, such as 0.25, 0.1, 0.5, 0.6. "
            "Empty: the whole picture. There is no face detector, so say where the faces are.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where to look within the crop. One mask for all pictures, stretched to them, or one for each in the order of the set.",
        ),
    ]


def labels_input() -> io.Input:
    """Return the socket for labels of other attributes."""
    return Labels.Input("labels", optional=True, tooltip="Labels of other attributes of the same set. The new labels are added to them.")


def label_outputs() -> list[io.Output]:
    """List the labels and the report."""
    return [
        Labels.Output("labelled", display_name="labels", tooltip="Class probabilities of every picture, for Label Features and Train ADP."),
        io.String.Output("report", display_name="report", tooltip="How often each class occurs, and the share of unsure pictures."),
    ]


def label_output(earlier: LabelSet | None, labels: LabelSet, *more: str) -> io.NodeOutput:
    """Return the labels, joined with earlier ones, and a report."""
    report = "\n".join([labels.lines(), *filter(None, more)])
    return io.NodeOutput(joined(earlier, labels), report, ui=ui.PreviewText(report))


def first_problem(*readers: Callable[[], Any]) -> bool | str:
    """Return True, or the first reader's error, as the host expects of ``validate_inputs``.

    A typing error then shows before anything is sampled.
    """
    try:
        for read in readers:
            read()
    except ValueError as error:
        return str(error)
    return True


def labels_in_region(
    features: FeatureSet, source: ImageSource, crop: str, mask: torch.Tensor | None
) -> tuple[LabelSet, dict[str, torch.Tensor]]:
    """Label the pictures of a set by a source's readings within a region."""
    stack = mask if mask is None or mask.ndim == 3 else mask[None]
    return label_images(features, source, Region(parse_box(crop), stack))
