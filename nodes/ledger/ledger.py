"""The balance ledger: Balance Ledger, Record Attributes, Ledger Report, Reset Ledger and Export Ledger."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...charts.report.histogram import histogram
from ...host.labels.classifier import HostClassifier
from ...host.ledger.ledgers import (
    LEDGERS_FOLDER,
    PICTURES_FOLDER,
    LedgerHandle,
    existing_ledger,
    export_ledger,
    ledger_names,
    ledger_path,
    ledgers_fingerprint,
    record_attributes,
)
from ...methods.ledger.ledger import Held
from ...methods.ledger.ledger_report import held_text, record_text
from ...metrics.panels import Panel, count_panels, headline
from ..core.sockets import EVALUATION, GUIDANCE, Classifier, Ledger, Target, schema


def _panels(held: Held) -> list[Panel]:
    return count_panels(held.target.attributes, held.target.classes, held.target.shares, held.counts)


def _named(name: str) -> bool | str:
    """Whether a ledger can have a name; the reason where not."""
    try:
        ledger_path(name.strip())
    except ValueError as error:
        return str(error)
    return True


class BalanceLedger(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseBalanceLedger",
            display_name="Balance Ledger",
            category=GUIDANCE,
            description=(
                "Keeps the shares of perceived attributes over many runs. Use it if you make images one at a time. Guidance "
                "with a ledger takes its quotas from everything that was counted. With Record Attributes, the ledger also makes up for "
                "images that missed their class."
            ),
            search_aliases=["fair", "balance", "queue", "batch 1", "running balance", "count", "history"],
            inputs=[
                io.String.Input(
                    "name",
                    default="portraits",
                    tooltip=f"Name of the ledger, a file in {LEDGERS_FOLDER}. If the ledger exists, it continues.",
                ),
                io.String.Input(
                    "group",
                    default="",
                    tooltip="Images of different groups are counted separately, for example one group per prompt. Empty: one group for "
                    "everything.",
                ),
            ],
            outputs=[
                Ledger.Output(
                    "ledger", display_name="ledger", tooltip="The ledger, for the guidance nodes, Bias Feature Steer and Record Attributes."
                ),
                io.String.Output(
                    "text", display_name="text", tooltip="What the ledger contained when it was opened. Ledger Report shows it at any time."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str) -> bool | str:
        return _named(name)

    @classmethod
    def execute(cls, name: str, group: str = "") -> io.NodeOutput:
        handle = LedgerHandle(name.strip(), group.strip())
        ledger, found = handle.opened()
        return io.NodeOutput(handle, held_text(handle.name, ledger.held(), found))


class RecordAttributes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseRecordAttributes",
            display_name="Record Attributes",
            category=EVALUATION,
            description=(
                "Saves images, and counts in a Balance Ledger which perceived classes a classifier sees in them. The next "
                "run then corrects for images that missed their class. Use it instead of Save Image."
            ),
            search_aliases=["save image", "ledger", "count", "classifier", "feedback", "balance"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Decoded images. The node saves them, so you need no other node to save them."),
                Ledger.Input("ledger", tooltip="The ledger that the guidance uses, from Balance Ledger."),
                Target.Input("target", tooltip="The target of the guidance. The node counts its attributes."),
                Classifier.Input(
                    "classifier",
                    tooltip="Reads the images, from Load Attribute Classifier. Measure the final result with another classifier.",
                ),
                io.String.Input(
                    "assigned",
                    optional=True,
                    force_input=True,
                    tooltip="Output 'assigned' of Distribution Guidance KSampler. If it is not connected, the node looks up the "
                    "assigned classes from the node that sampled the images.",
                ),
            ],
            outputs=[
                Ledger.Output(
                    "recorded", display_name="ledger", tooltip="The same ledger, after this node has counted. For Ledger Report."
                ),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="The class assigned and the class seen for each image, and the counts of the ledger.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, images: torch.Tensor, ledger: LedgerHandle, target: Any, classifier: HostClassifier, assigned: str | None = None
    ) -> io.NodeOutput:
        hidden = getattr(cls, "hidden", None)
        graph, extra = getattr(hidden, "prompt", None), getattr(hidden, "extra_pnginfo", None)
        recorded = record_attributes(images, ledger, target, classifier, assigned or "", graph, extra)
        lines = record_text(recorded.seen, recorded.assigned, target.reordered(classifier.attributes).attributes)
        text = f"{lines}\n{held_text(ledger.name, ledger.open().held(), recorded.restored)}"
        subfolder = f"equipoise/ledgers/{ledger.name}"
        saved = [{"filename": name, "subfolder": subfolder, "type": "output"} for name in recorded.files]
        return io.NodeOutput(ledger, text, ui={"images": saved, **ui.PreviewText(text).as_dict()})


class LedgerReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLedgerReport",
            display_name="Ledger Report",
            category=EVALUATION,
            description=(
                "Shows what a Balance Ledger has counted: the perceived classes seen and assigned, their distance to the "
                "target (FD, fairness discrepancy), and how often an image showed its assigned class."
            ),
            search_aliases=["balance", "count", "fairness discrepancy", "chart", "history"],
            is_output_node=True,
            inputs=[
                Ledger.Input(
                    "ledger", tooltip="The ledger to show. Connect Record Attributes to include the current run, or connect Balance Ledger."
                ),
                Target.Input(
                    "target",
                    optional=True,
                    tooltip="Shows only what was counted for this target. If it is not connected, the node shows all targets, the "
                    "newest first.",
                ),
            ],
            outputs=[
                io.Image.Output("chart", display_name="chart", tooltip="Shares of the counted images next to the target, 960 pixels wide."),
                io.Float.Output(
                    "fd",
                    display_name="FD",
                    tooltip="Fairness discrepancy of the first target shown. 0 means exactly the shares you asked for.",
                ),
                io.String.Output("text", display_name="text", tooltip="The counts as text."),
                io.String.Output("json", display_name="JSON", tooltip="Counts, shares, intervals and discrepancies as JSON."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(cls, ledger: LedgerHandle, target: Any = None) -> io.NodeOutput:
        opened, found = ledger.opened()
        only = None if target is None else opened.held_for(target)
        held = ([only] if only else []) if target is not None else opened.held()[::-1]
        held = [h for h in held if sum(h.counts)]
        text = held_text(ledger.name, held, found)
        if not held:
            raise ValueError(f"the ledger '{ledger.name}' has counted no image{' for this target' if target is not None else ''} yet.")
        panels = [panel for h in held[:4] for panel in _panels(h)]
        chart = torch.from_numpy(histogram(panels, soft=False)).unsqueeze(0).float() / 255
        figures = {"ledger": ledger.name, "group": held[0].group, "panels": [p.to_dict() for p in panels]}
        fd = headline(_panels(held[0]))
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(chart, fd, text, json.dumps(figures, allow_nan=False), ui=shown)


class ResetLedger(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseResetLedger",
            display_name="Reset Ledger",
            category=EVALUATION,
            description=(
                "Deletes everything that a Balance Ledger has counted of perceived attributes. The pictures stay on disk. "
                "You must enter the number of counted images to confirm, so a graph that you queue again by mistake deletes "
                "nothing."
            ),
            search_aliases=["clear", "forget", "balance", "start over"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "ledger_name", options=ledger_names(), tooltip=f"A ledger in {LEDGERS_FOLDER}. Press R to refresh the list."
                ),
                io.Int.Input(
                    "images",
                    default=0,
                    min=0,
                    max=2**53 - 1,
                    tooltip="Number of images that the ledger counts now, as Ledger Report shows it. With any other number, the node "
                    "does nothing.",
                ),
            ],
            outputs=[io.String.Output("text", display_name="text", tooltip="What the node did, or how many images the ledger counts.")],
        )

    @classmethod
    def fingerprint_inputs(cls, ledger_name: str, images: int) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(cls, ledger_name: str, images: int) -> io.NodeOutput:
        handle = existing_ledger(ledger_name)
        ledger, _ = handle.opened()
        text = f"the ledger '{handle.name}' was left as it is: it counts {ledger.images()} images, and {images} were named."
        if images and ledger.reset(images):
            text = f"the ledger '{handle.name}' has forgotten {images} images; their pictures are still in {PICTURES_FOLDER}/{handle.name}."
        return io.NodeOutput(text, ui=ui.PreviewText(text))


class ExportLedger(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseExportLedger",
            display_name="Export Ledger",
            category=EVALUATION,
            description=(
                "Writes a Balance Ledger to a CSV file, with one line per image: time, run, seed, the class assigned, the "
                "perceived class seen, the file and its SHA-256."
            ),
            search_aliases=["csv", "save", "audit", "table", "history"],
            is_output_node=True,
            inputs=[
                Ledger.Input(
                    "ledger", tooltip="Ledger to write. Take it from Record Attributes to include this run, or from Balance Ledger."
                )
            ],
            outputs=[
                io.String.Output(
                    "path", display_name="path", tooltip=f"Path of the file, {PICTURES_FOLDER}/NAME.csv. An older file is replaced."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        return ledgers_fingerprint()

    @classmethod
    def execute(cls, ledger: LedgerHandle) -> io.NodeOutput:
        path, count = export_ledger(ledger)
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"{count} images in {PICTURES_FOLDER}/{path.name}"))


NODES = [BalanceLedger, RecordAttributes, LedgerReport, ResetLedger, ExportLedger]
