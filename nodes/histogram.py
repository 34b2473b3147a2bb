"""Attribute Histogram: what came out, beside what was asked for."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..charts.histogram import histogram, summary
from ..host.classifier import HostClassifier
from ..metrics.panels import headline, make_panels
from .sockets import EVALUATION, Classifier, Target, schema


class AttributeHistogram(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseAttributeHistogram",
            display_name="Attribute Histogram",
            category=EVALUATION,
            description=(
                "Counts the classes that a classifier sees in images and measures their distance to a target: the fairness discrepancy FD "
                "of Balancing Act (CVPR 2024), with a 95% interval and with what chance alone would leave. Goes after VAE Decode."
            ),
            search_aliases=["fairness discrepancy", "distribution", "bias", "measure", "count", "chart", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The images to count, all as one batch. A few dozen say little: see the noise floor."),
                Classifier.Input("classifier", tooltip="From Load Attribute Classifier; best one that took no part in training the ADP."),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="What was asked for; classes are matched by name. Without it the distance to equal shares is shown.",
                ),
                io.Image.Input("baseline", optional=True, tooltip="Images to show beside, for instance the same seeds without guidance."),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to show, separated by commas. Empty: those of the target, or all where there is no target.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many images were sampled together. Guidance decides over a batch, so the interval resamples whole "
                    "batches; 1 resamples single images, which is too wide for guided batches.",
                ),
            ],
            outputs=[
                io.Image.Output("chart", display_name="chart", tooltip="The histogram as an image, 960 pixels wide."),
                io.Float.Output(
                    "fd",
                    display_name="FD",
                    tooltip="Fairness discrepancy by hard counts, 0 = exactly as asked: of the joint table for a joint target, "
                    "else the largest among the attributes of the target, else among all.",
                ),
                io.String.Output(
                    "json", display_name="JSON", tooltip="All the numbers: counts, shares, soft means, intervals, noise floors."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        classifier: HostClassifier,
        target: Any = None,
        baseline: torch.Tensor | None = None,
        attribute: str = "",
        batch_size: int = 1,
    ) -> io.NodeOutput:
        aimed = None
        if target is not None:
            try:
                ordered = target.reordered(classifier.attributes)
            except ValueError as error:
                raise ValueError(f"The classifier '{classifier.name}' cannot measure this target: {error}") from error
            aimed = (ordered.attributes, ordered.shares)
        panels = make_panels(
            classifier.probabilities(images),
            classifier.attributes,
            target=aimed,
            attributes=[a.strip() for a in re.split(r"[,;\n]", attribute) if a.strip()],
            baseline=None if baseline is None else classifier.probabilities(baseline),
            batch=batch_size,
        )
        chart = torch.from_numpy(histogram(panels)).unsqueeze(0).float() / 255
        fd = headline(panels)
        figures = {"classifier": classifier.name, "fd": fd, "panels": [p.to_dict() for p in panels]}
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(summary(panels)).as_dict()}
        return io.NodeOutput(chart, fd, json.dumps(figures, allow_nan=False), ui=shown)


NODES = [AttributeHistogram]
