"""Fairness Report."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import torch
from comfy_api.latest import io

from ...charts.report.report import draw_page
from ...charts.report.report_html import html_page
from ...charts.report.report_page import cautions, headlines, report_page
from ...charts.report.report_pictures import class_sheets
from ...host.labels.classifier import HostClassifier
from ...host.report.gather import INCEPTION, Gathered, ReportInputs, gather, interruptible, origin
from ...host.report.report_warnings import report_warnings
from ...host.report.write import PLACE, check_place, shown_path, write_report
from ...metrics.findings import Embedding, Findings, Reader, cells_of, find
from ..core.inputs import names_of
from ..core.sockets import EVALUATION, Classifier, Target, schema
from ..core.ui import as_image, shown

DEFAULT_NAME, HEADING = "fairness_report", "Fairness report"


class FairnessReportNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFairnessReport",
            display_name="Fairness Report",
            category=EVALUATION,
            description=(
                "Compares plain images with steered ones on one page: shares and FD with interval and noise floor, quality, "
                "drift of other attributes, images by class, settings, seeds and file hashes. You get an image, and one HTML file in the "
                "output folder that needs no other file."
            ),
            search_aliases=["fairness discrepancy", "evaluate", "FID", "KID", "CMMD", "CLIP score", "drift", "bias", "html", "audit"],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            inputs=[
                io.Image.Input("base", tooltip="Images from plain sampling, as one batch. Connect them before any upscaling."),
                io.Image.Input(
                    "steered", tooltip="Images from guided or steered sampling, as one batch. Use the same seeds in the same order."
                ),
                Classifier.Input(
                    "classifier",
                    tooltip="The judge: the classifier that measures. Use one that took no part in making the ADP or the bias features.",
                ),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="The shares you asked for. Classes are matched by name. Without a target, the page shows the distance to "
                    "equal shares.",
                ),
                Classifier.Input("classifier_2", optional=True, tooltip="A second judge. The page shows it side by side with the first."),
                Classifier.Input(
                    "labeller",
                    optional=True,
                    tooltip="The classifier that made the labels for the ADP or the bias features. The page states how well it agrees "
                    "with the judge. It warns you if both are the same network.",
                ),
                io.Image.Input("reference", optional=True, tooltip="Real images, or others that your images should resemble, for quality."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="CLIP's image encoder, for quality and similarity (CLIP-MMD and CLIP-I). Without it, only the judge's own "
                    "features are used.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Text encoder of the same CLIP, with its projection, for CLIP-T."),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to show, separated by commas. Empty: the attributes of the target, or all of them if there is "
                    "no target.",
                ),
                io.Boolean.Input(
                    "same_seeds",
                    default=True,
                    tooltip="On if images at the same place in both sets have the same seed. Similarity and drift are then computed "
                    "pair by pair.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many steered images were sampled together. Guidance decides over a batch, so intervals resample whole "
                    "batches.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    tooltip="The prompt of all images. The page then shows how well images match it (CLIP-T). It needs clip_vision and "
                    "clip.",
                ),
                io.Boolean.Input(
                    "inception",
                    default=False,
                    tooltip="Adds distances in Inception features, as FID and KID in papers. It needs the package clean-fid, and its "
                    f"weights in {INCEPTION}. Nothing is downloaded.",
                ),
                io.Int.Input(
                    "images_per_class",
                    default=24,
                    min=0,
                    max=256,
                    tooltip="How many images of every class and set are shown. 0 shows none.",
                ),
                io.Boolean.Input(
                    "hash_files",
                    default=True,
                    tooltip="Lists the SHA-256 of every model file in the graph. Large checkpoints take some seconds.",
                ),
                io.String.Input(
                    "name",
                    default=DEFAULT_NAME,
                    tooltip=f"Name of the HTML file in {PLACE}. A number is added, and no file is ever overwritten.",
                ),
            ],
            outputs=[
                io.Image.Output("page", display_name="page", tooltip="The report as an image, 960 pixels wide, or 1944 with two judges."),
                io.Float.Output(
                    "fd",
                    display_name="FD",
                    tooltip="Fairness discrepancy of the steered images by the judge. 0 means exactly the shares you asked for.",
                ),
                io.String.Output("json", display_name="JSON", tooltip="All figures, with intervals, floors, settings, files and seeds."),
                io.String.Output("file", display_name="file", tooltip="Full path of the HTML file."),
            ],
        )

    @classmethod
    def execute(
        cls,
        base: torch.Tensor,
        steered: torch.Tensor,
        classifier: HostClassifier,
        target: Any = None,
        classifier_2: HostClassifier | None = None,
        labeller: HostClassifier | None = None,
        reference: torch.Tensor | None = None,
        clip_vision: Any = None,
        clip: Any = None,
        attribute: str = "",
        same_seeds: bool = True,
        batch_size: int = 1,
        prompt: str = "",
        inception: bool = False,
        images_per_class: int = 24,
        hash_files: bool = True,
        name: str = DEFAULT_NAME,
    ) -> io.NodeOutput:
        check_place(name)
        given = ReportInputs(
            base=base,
            steered=steered,
            judge=classifier,
            target=target,
            second=classifier_2,
            labeller=labeller,
            reference=reference,
            vision=clip_vision,
            clip=clip,
            prompt=prompt,
            inception=inception,
            attributes=tuple(names_of(attribute)),
            same_seeds=same_seeds,
            batch=batch_size,
        )
        graph, node = getattr(cls.hidden, "prompt", None), getattr(cls.hidden, "unique_id", None)
        read = gather(given, graph, node)
        found = measured(read, given)
        panel, judge = found.judged[0].panels[0], read.judges[0]
        sheets = class_sheets(panel, base, steered, cells_of(judge.base, panel), cells_of(judge.steered, panel), images_per_class)
        warnings = [*read.untold, *report_warnings(given, graph, node)]
        came = origin(given, graph, node, hash_files)
        page = report_page(found, sheets, title(name.strip()), subtitle(found), warnings, **came)
        path = write_report(name, html_page(page))
        drawn = as_image(draw_page(page))
        told = [*warnings, *cautions(found)]
        figures = {**found.to_dict(), **came, "warnings": told, "file": shown_path(path)}
        text = "\n".join([*headlines(found), *(f"Note: {w}" for w in told), f"saved: {shown_path(path)}"])
        return io.NodeOutput(drawn, found.fd, json.dumps(figures, allow_nan=False), str(path), ui=shown(cls, drawn, text))


def measured(read: Gathered, given: ReportInputs) -> Findings:
    """What the readings say; the user can interrupt between distances."""
    return find(
        [Reader(**vars(r)) for r in read.judges],
        read.targets,
        [Embedding(**vars(f)) for f in read.features],
        [Reader(**vars(r)) for r in read.others],
        read.prompt,
        given.attributes,
        given.same_seeds,
        given.batch,
        tick=interruptible,
    )


def title(name: str) -> str:
    """Heading of the page."""
    return HEADING if name == DEFAULT_NAME else f"{HEADING}: {name}"


def subtitle(found: Findings) -> str:
    """How many images of which kind, and when."""
    counts = ", ".join(f"{n} {which}" for which, n in found.n.items())
    seeds = "same seeds" if found.paired else "seeds not paired"
    batches = f", batches of {found.batch}" if found.batch > 1 else ""
    return f"{counts} images, {seeds}{batches}. {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC."


NODES = [FairnessReportNode]
