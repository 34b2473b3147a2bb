"""Attribute Histogram: compares the classes of images with the target."""

from __future__ import annotations

import json

import torch
from comfy_api.latest import io

from ...charts.core.histogram import histogram, histogram_text
from ...host.labels.classifier import HostClassifier
from ...host.ledger.assigned import read_assigned
from ...host.ledger.assigned_runs import AssignedRuns, assigned_now
from ...host.ledger.ledgers import LedgerHandle
from ...host.report.thumbs import image_thumbs
from ...methods.core.targets import TargetDistribution
from ...metrics.panels import Panel, count_panels, headline, make_panels
from ..core.inputs import names_of
from ..core.queued import queued_graph
from ..core.sockets import MAIN, Classifier, Ledger, Target, schema
from ..core.ui import as_image, shown


class AttributeHistogram(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseAttributeHistogram",
            display_name="Attribute Histogram",
            category=MAIN,
            description=(
                "Counts the classes that a classifier sees in your images and compares them with the target. It measures the FD "
                "(fairness discrepancy) of Balancing Act (CVPR 2024), with a 95% interval and the FD that chance alone would give. Place "
                "it after VAE Decode."
            ),
            search_aliases=[
                "fairness discrepancy", "distribution", "bias", "measure", "count", "chart", "evaluate", "diversity", "gender", "women",
            ],  # fmt: skip
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
                    tooltip="Output 'assigned' of a node that decides the classes. The node then shows each image with its assigned "
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
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor | None = None,
        classifier: HostClassifier | None = None,
        target: TargetDistribution | None = None,
        baseline: torch.Tensor | None = None,
        attribute: str = "",
        batch_size: int = 1,
        ledger: LedgerHandle | None = None,
        assigned: str | AssignedRuns | None = None,
    ) -> io.NodeOutput:
        wanted, thumbs = names_of(attribute), []
        if ledger is not None:
            panels, source = _of_ledger(ledger, target, wanted), {"ledger": ledger.name}
        elif images is None or classifier is None:
            raise ValueError(
                "a histogram counts images by a classifier, or what a ledger holds: connect both images and classifier, or a ledger."
            )
        else:
            ordered = None if target is None else _ordered(target, classifier)
            classes = _assigned(assigned_now(assigned, queued_graph(cls), len(images)), ordered, len(images))
            read = classifier.probabilities(images)
            panels = make_panels(
                read,
                classifier.attributes,
                target=None if ordered is None else (ordered.attributes, ordered.shares),
                attributes=wanted,
                baseline=None if baseline is None else classifier.probabilities(baseline),
                batch=batch_size,
            )
            source = {"classifier": classifier.name}
            names = wanted or (list(classifier.attributes) if ordered is None else list(ordered.attributes))
            thumbs = image_thumbs(images, {a: read[a] for a in names}, classifier.attributes, classes)
        chart = as_image(histogram(panels, soft=ledger is None))
        fd = headline(panels)
        figures = {**source, "fd": fd, "panels": [p.to_dict() for p in panels]}
        on_node = shown(cls, chart, histogram_text(panels))
        if thumbs:
            on_node["equipoise_thumbs"] = thumbs
        return io.NodeOutput(chart, fd, json.dumps(figures, allow_nan=False), ui=on_node)


def _ordered(target: TargetDistribution, classifier: HostClassifier) -> TargetDistribution:
    """Reorder a target's classes as the classifier has them."""
    try:
        return target.reordered(classifier.attributes)
    except ValueError as error:
        raise ValueError(f"The classifier '{classifier.name}' cannot measure this target: {error}") from error


def _assigned(text: str, target: TargetDistribution | None, images: int) -> dict[str, list[str]] | None:
    """Return the class assigned to every image, per attribute; None without a text."""
    if not text.strip():
        return None
    if target is None:
        raise ValueError("'assigned' is read by the target that was asked for: connect the target too, or disconnect 'assigned'.")
    cells, _ = read_assigned(text, target, images)
    return None if cells is None else {a: [cell[i] for cell in cells] for i, a in enumerate(target.attributes)}


def _of_ledger(ledger: LedgerHandle, target: TargetDistribution | None, wanted: list[str]) -> list[Panel]:
    """Compare a ledger's counts with the target."""
    if target is None:
        raise ValueError("a ledger counts images by their target: connect the target too, or use Ledger Report, which shows all.")
    counted = ledger.opened()[0].balance_of(target)
    if counted is None or not sum(counted.counts):
        raise ValueError(f"the ledger '{ledger.name}' has counted no image for this target yet.")
    panels = count_panels(counted.target.attributes, counted.target.classes, counted.target.shares, counted.counts)
    selected = [p for p in panels if not wanted or set(p.attributes) <= set(wanted)]
    if not selected:
        raise ValueError(f"the target does not name '{wanted[0]}'; it names: {', '.join(counted.target.attributes)}.")
    return selected


NODES = [AttributeHistogram]
