"""Record Attributes."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ...host.labels.classifier import HostClassifier
from ...host.ledger.assigned_runs import AssignedRuns, assigned_now
from ...host.ledger.ledgers import (
    LedgerHandle,
    record_attributes,
)
from ...methods.core.targets import TargetDistribution
from ...methods.ledger.ledger_report import ledger_text, record_text
from ..core.queued import queued_graph
from ..core.sockets import MEASURE, Classifier, Ledger, Target, schema


class RecordAttributes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseRecordAttributes",
            display_name="Record Attributes",
            category=MEASURE,
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
                    tooltip="Output 'assigned' of a node that decides the classes. If it is not connected, the node looks up the "
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
        cls,
        images: torch.Tensor,
        ledger: LedgerHandle,
        target: TargetDistribution,
        classifier: HostClassifier,
        assigned: str | AssignedRuns | None = None,
    ) -> io.NodeOutput:
        graph = queued_graph(cls)
        extra = getattr(getattr(cls, "hidden", None), "extra_pnginfo", None)
        recorded = record_attributes(images, ledger, target, classifier, assigned_now(assigned, graph, len(images)), graph, extra)
        lines = record_text(recorded.seen, recorded.assigned, target.reordered(classifier.attributes).attributes)
        text = f"{lines}\n{ledger_text(ledger.name, ledger.open().balances(), recorded.restored)}"
        subfolder = f"equipoise/ledgers/{ledger.name}"
        saved = [{"filename": name, "subfolder": subfolder, "type": "output"} for name in recorded.files]
        return io.NodeOutput(ledger, text, ui={"images": saved, **ui.PreviewText(text).as_dict()})


NODES = [RecordAttributes]
