"""Fairness Report: compares base and steered images on one page."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import torch
from comfy_api.latest import io

from ...charts.report.report import draw_page, draw_summary
from ...charts.report.report_html import html_page
from ...charts.report.report_page import cautions, headlines, report_page
from ...charts.report.report_pictures import class_sheets
from ...host.core.live import running_workflow
from ...host.labels.classifier import HostClassifier
from ...host.report.gather import INCEPTION, Gathered, ReportInputs, gather, interruptible, origin
from ...host.report.report_warnings import report_warnings
from ...host.report.write import PLACE, check_place, shown_path, write_report
from ...methods.core.targets import TargetDistribution
from ...metrics.findings import ComparisonSettings, Embedding, Findings, Reader, cells_of, findings_of
from ..core.inputs import names_of
from ..core.queued import queued_graph, queued_id
from ..core.sockets import MAIN, Classifier, Target, schema
from ..core.ui import as_image, shown

DEFAULT_NAME, HEADING = "fairness_report", "Fairness report"


class FairnessReportNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFairnessReport",
            display_name="Fairness Report",
            category=MAIN,
            description=(
                "Compares plain images with steered ones on one page: shares and FD with interval and noise floor, quality, "
                "drift of other attributes, images by class, settings, seeds and file hashes. You get an image, and one HTML file in the "
                "output folder that needs no other file."
            ),
            search_aliases=[
                "fairness discrepancy", "evaluate", "FID", "KID", "CMMD", "CLIP score", "drift", "bias", "html", "audit", "diversity",
                "gender", "women",
            ],  # fmt: skip
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
        target: TargetDistribution | None = None,
        name: str = DEFAULT_NAME,
        **widgets: Any,
    ) -> io.NodeOutput:
        check_place(name)
        inputs = ReportInputs(
            base=base,
            steered=steered,
            judge=classifier,
            target=target,
            second=widgets.get("classifier_2"),
            labeller=widgets.get("labeller"),
            reference=widgets.get("reference"),
            vision=widgets.get("clip_vision"),
            clip=widgets.get("clip"),
            prompt=widgets.get("prompt", ""),
            inception=widgets.get("inception", False),
            attributes=tuple(names_of(widgets.get("attribute", ""))),
            same_seeds=widgets.get("same_seeds", True),
            batch=widgets.get("batch_size", 1),
        )
        graph, node = queued_graph(cls), queued_id(cls)
        read = gather(inputs, graph, node)
        findings = measure_readings(read, inputs)
        panel, judge = findings.judged[0].panels[0], read.judges[0]
        cells = cells_of(judge.base, panel), cells_of(judge.steered, panel)
        sheets = class_sheets(panel, base, steered, *cells, widgets.get("images_per_class", 24))
        warnings = [*read.missing, *report_warnings(inputs, graph, node)]
        provenance = origin(inputs, graph, node, widgets.get("hash_files", True))
        page = report_page(findings, sheets, title(name.strip()), subtitle(findings), warnings, **provenance)
        path = write_report(name, html_page(page))
        image = as_image(draw_page(page))
        notes = [*warnings, *cautions(findings)]
        figures = {**findings.to_dict(), **provenance, "warnings": notes, "file": shown_path(path)}
        text = "\n".join([*headlines(findings), *(f"Note: {note}" for note in notes), f"saved: {shown_path(path)}"])
        on_node = shown(cls, as_image(draw_summary(page)), text)
        on_node["equipoise_report"] = [{"name": path.name, "workflow": running_workflow()}]
        return io.NodeOutput(image, findings.fd, json.dumps(figures, allow_nan=False), str(path), ui=on_node)


def measure_readings(read: Gathered, inputs: ReportInputs) -> Findings:
    """Compute the figures from all readings. The user can interrupt between distances."""
    return findings_of(
        [Reader(**vars(r)) for r in read.judges],
        read.targets,
        [Embedding(**vars(f)) for f in read.features],
        [Reader(**vars(r)) for r in read.others],
        read.prompt,
        ComparisonSettings(inputs.attributes, inputs.same_seeds, inputs.batch),
        interruptible,
    )


def title(name: str) -> str:
    """Return the heading of the page."""
    return HEADING if name == DEFAULT_NAME else f"{HEADING}: {name}"


def subtitle(findings: Findings) -> str:
    """Describe the number of images, their seeds and the time."""
    counts = ", ".join(f"{n} {which}" for which, n in findings.n.items())
    seeds = "same seeds" if findings.paired else "seeds not paired"
    batches = f", batches of {findings.batch}" if findings.batch > 1 else ""
    return f"{counts} images, {seeds}{batches}. {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC."


NODES = [FairnessReportNode]
