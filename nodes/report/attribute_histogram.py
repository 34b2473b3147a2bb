"""Attribute Histogram."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...charts.report.histogram import histogram, summary
from ...host.labels.classifier import HostClassifier
from ...host.ledger.ledgers import LedgerHandle, read_assigned
from ...host.report.thumbs import thumbnails
from ...methods.core.targets import TargetDistribution
from ...metrics.panels import Panel, count_panels, headline, make_panels
from ..core.inputs import names_of
from ..core.sockets import EVALUATION, Classifier, Ledger, Target, schema


class AttributeHistogram(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseAttributeHistogram",
            display_name="Attribute Histogram",
            category=EVALUATION,
            description=(
                "Counts the classes that a classifier sees in your images and compares them with the target. It measures the FD "
                "(fairness discrepancy) of Balancing Act (CVPR 2024), with a 95% interval and the FD that chance alone would give. Place "
                "it after VAE Decode."
            ),
            search_aliases=["fairness discrepancy", "distribution", "bias", "measure", "count", "chart", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Images to count. They count as one set. A few dozen say little, see the noise floor. You can connect a "
                    "ledger instead.",
                ),
                Classifier.Input(
                    "classifier",
                    optional=True,
                    tooltip="Classifier that reads the images, from Load Attribute Classifier. Use one that took no part in training "
                    "the ADP. It is not used with a ledger.",
                ),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="The shares you asked for. Classes are matched by name. Without a target, the chart shows the distance to "
                    "equal shares.",
                ),
                io.Image.Input("baseline", optional=True, tooltip="Images to compare with, for example the same seeds without guidance."),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to show, separated by commas. Empty: the attributes of the target, or all of them if there is "
                    "no target.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many images were sampled together. Guidance decides over a batch, so the interval resamples whole "
                    "batches. 1 resamples single images; that interval is too wide for guided batches.",
                ),
                Ledger.Input(
                    "ledger",
                    optional=True,
                    tooltip="Shows what a ledger has counted for the target, instead of images. A target must be connected. Take the "
                    "ledger from Record Attributes, so that it counts this run too.",
                ),
                io.String.Input(
                    "assigned",
                    optional=True,
                    force_input=True,
                    tooltip="Output 'assigned' of Distribution Guidance KSampler. The node then shows each image with its assigned "
                    "class and the class seen in it. This does not change the figures. It needs images and a target.",
                ),
            ],
            outputs=[
                io.Image.Output("chart", display_name="chart", tooltip="The histogram as an image, 960 pixels wide."),
                io.Float.Output(
                    "fd",
                    display_name="FD",
                    tooltip="Fairness discrepancy of the hard counts. 0 means exactly the shares you asked for. For a joint target it "
                    "is the FD of the joint table, otherwise the largest FD among the attributes of the target, or among all attributes "
                    "if there is no target.",
                ),
                io.String.Output(
                    "json", display_name="JSON", tooltip="All figures: counts, shares, soft means, intervals and noise floors."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor | None = None,
        classifier: HostClassifier | None = None,
        target: Any = None,
        baseline: torch.Tensor | None = None,
        attribute: str = "",
        batch_size: int = 1,
        ledger: LedgerHandle | None = None,
        assigned: str | None = None,
    ) -> io.NodeOutput:
        wanted, thumbs = names_of(attribute), []
        if ledger is not None:
            panels, source = _of_ledger(ledger, target, wanted), {"ledger": ledger.name}
        elif images is None or classifier is None:
            raise ValueError(
                "a histogram counts images by a classifier, or what a ledger holds: connect both images and classifier, or a ledger."
            )
        else:
            aimed = None if target is None else _aimed(target, classifier)
            given = _assigned(assigned or "", aimed, len(images))
            read = classifier.probabilities(images)
            panels = _of_images(read, classifier, aimed, baseline, wanted, batch_size)
            source = {"classifier": classifier.name}
            names = wanted or (list(classifier.attributes) if aimed is None else list(aimed.attributes))
            thumbs = thumbnails(images, {a: read[a] for a in names}, classifier.attributes, given)
        chart = torch.from_numpy(histogram(panels, soft=ledger is None)).unsqueeze(0).float() / 255
        fd = headline(panels)
        figures = {**source, "fd": fd, "panels": [p.to_dict() for p in panels]}
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(summary(panels)).as_dict()}
        if thumbs:
            shown["equipoise_thumbs"] = thumbs
        return io.NodeOutput(chart, fd, json.dumps(figures, allow_nan=False), ui=shown)


def _aimed(target: TargetDistribution, classifier: HostClassifier) -> TargetDistribution:
    """The target over the classifier's classes."""
    try:
        return target.reordered(classifier.attributes)
    except ValueError as error:
        raise ValueError(f"The classifier '{classifier.name}' cannot measure this target: {error}") from error


def _assigned(text: str, target: TargetDistribution | None, images: int) -> dict[str, list[str]] | None:
    """The class that every image was assigned, per attribute; None where nothing is said of it."""
    if not text.strip():
        return None
    if target is None:
        raise ValueError("'assigned' is read by the target that was asked for: connect the target too, or disconnect 'assigned'.")
    cells, _ = read_assigned(text, target, images)
    return None if cells is None else {a: [cell[i] for cell in cells] for i, a in enumerate(target.attributes)}


def _of_images(
    read: dict[str, torch.Tensor],
    classifier: HostClassifier,
    target: TargetDistribution | None,
    baseline: torch.Tensor | None,
    wanted: list[str],
    batch: int,
) -> list[Panel]:
    return make_panels(
        read,
        classifier.attributes,
        target=None if target is None else (target.attributes, target.shares),
        attributes=wanted,
        baseline=None if baseline is None else classifier.probabilities(baseline),
        batch=batch,
    )


def _of_ledger(ledger: LedgerHandle, target: Any, wanted: list[str]) -> list[Panel]:
    if target is None:
        raise ValueError("a ledger counts images by their target: connect the target too, or use Ledger Report, which shows all.")
    held = ledger.opened()[0].held_for(target)
    if held is None or not sum(held.counts):
        raise ValueError(f"the ledger '{ledger.name}' has counted no image for this target yet.")
    panels = count_panels(held.target.attributes, held.target.classes, held.target.shares, held.counts)
    kept = [p for p in panels if not wanted or set(p.attributes) <= set(wanted)]
    if not kept:
        raise ValueError(f"the target does not name '{wanted[0]}'; it names: {', '.join(held.target.attributes)}.")
    return kept


NODES = [AttributeHistogram]
