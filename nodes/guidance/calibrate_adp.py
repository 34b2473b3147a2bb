"""Calibrate ADP."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.adp.figures import TrialRow, trials_chart
from ...host.core.trials import TRIALS_FOLDER, SamplingInputs, TrialInputs, log_path
from ...host.guidance.calibrate import calibrate_adp, candidates_of
from ...methods.data.feature_set import FeatureSet
from ...methods.guidance.calibrate import CalibratedMoves
from ...methods.labels.labels import LabelSet
from ...models.adp import AdpFile
from ..core.inputs import SAMPLER, TRIAL, fixed_seed, names_of
from ..core.sockets import MAKE, Adp, Classifier, Features, Labels, schema
from ..core.ui import as_batch, as_image, shown


class CalibrateADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseCalibrateADP",
            display_name="Calibrate ADP",
            category=MAKE,
            description=(
                "Tests on your model, with a few hundred sampled images, in which direction, at which noise levels and how far "
                "an ADP has to move images to reach each class. Afterwards Distribution Guidance works at strength 1. If you interrupt "
                "it, it continues where it stopped."
            ),
            search_aliases=["attribute distribution predictor", "directions", "strength", "window", "balancing act"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the ADP was trained for, without guidance. The node changes a copy."),
                Adp.Input("adp", tooltip="From Train ADP or Load ADP."),
                *TRIAL.inputs(),
                io.Int.Input(
                    "images",
                    default=48,
                    min=4,
                    max=4096,
                    tooltip="Images per trial, rounded up to whole batches. There are up to 31 trials per attribute. With 48 images, a "
                    "share is exact to about 7 points. 192 are better if you have the time.",
                ),
                fixed_seed("Seed of the first batch of every trial. Each further batch adds 1. All trials start from the same noise."),
                *SAMPLER.inputs(cfg=7.5),
                io.String.Input(
                    "attribute",
                    default="",
                    tooltip="Attributes to calibrate, separated by commas. Empty: all that have a direction to try.",
                ),
                io.String.Input(
                    "name",
                    default="my_calibration",
                    tooltip=f"Name under which finished trials are saved in {TRIALS_FOLDER}. If the node is interrupted, queue the same "
                    "graph again and it continues. With other settings it starts again.",
                ),
                Features.Input(
                    "features",
                    optional=True,
                    tooltip="The feature set that the ADP was trained on. The node computes directions from it. It needs labels.",
                ),
                Labels.Input("labels", optional=True, tooltip="Labels of that feature set, as for Train ADP."),
                Classifier.Input(
                    "classifier",
                    optional=True,
                    tooltip="Reads the images of the trials. Without one, the ADP reads them, with one more U-Net call per image. A "
                    "classifier is required for attributes that have directions in the file but that the ADP does not read.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the images of the trials for the classifier."),
            ],
            outputs=[
                Adp.Output("calibrated", display_name="ADP", tooltip="The ADP with its moves, for Save ADP and Distribution Guidance."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="The share that each class reached, with which sizes, and up to which strength quality holds.",
                ),
                io.Image.Output("chart", display_name="chart", tooltip="Every trial, one picture per attribute."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        adp: AdpFile,
        images: int,
        name: str,
        features: FeatureSet | None = None,
        labels: LabelSet | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        if (features is None) != (labels is None):
            raise ValueError("features and labels belong together: connect both, or neither to calibrate what the ADP file holds.")
        log_path(name)  # refuse a bad name before directions are computed
        moves = candidates_of(adp, features, labels, names_of(widgets["attribute"]))
        sampling = SamplingInputs(model, *TRIAL.take(widgets), SAMPLER.take(widgets))
        trials = TrialInputs(sampling, images, name, widgets.get("vae"), widgets.get("classifier"))
        results = calibrate_adp(adp, moves, trials, "" if features is None else features.name)
        report = "\n".join(line for r in results for line in r.lines)
        charts = as_batch([move_trials_chart(r) for r in results])
        return io.NodeOutput(results[-1].file, report, charts, ui=shown(cls, charts, report))


def move_trials_chart(result: CalibratedMoves) -> torch.Tensor:
    """Draw the trials of one attribute."""
    ((attribute, tried),) = result.trials.items()
    rows = [
        TrialRow(
            f"{t['source']} at {t['site']}",
            " / ".join(f"{s:g}" for s in t["sizes"]) + (f"  x {t['strength']:g}" if t["strength"] != 1 else ""),
            tuple(t["hits"]),
            t["drift"],
            t["unsure"],
            t["chosen"],
            t["best"],
        )
        for t in tried
    ]
    return as_image(trials_chart(rows, f"{attribute}: sizes at high / middle / low noise", result.plain_unsure[attribute]))


NODES = [CalibrateADP]
