"""Train ADP, Save ADP and ADP Info."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from ...charts.adp.figures import adp_curves
from ...host.core.files import FileKind
from ...host.core.progress import host_progress, training_device
from ...methods.adp.figures import describe
from ...methods.adp.train import train_file
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.adp import KINDS, AdpFile, save_adp
from ..core.shared_inputs import fixed_seed
from ..core.sockets import TRAINING, Adp, Features, Labels, schema
from ..core.ui import as_image, shown

ADP_FILES = FileKind("equipoise_adp", "an ADP", save_adp)

ADP_FOLDER = "models/equipoise/adp"
NO_FIGURES = "this ADP file keeps no accuracy by noise level"


def curves_of(adp: AdpFile) -> torch.Tensor:
    """IMAGE [1, H, W, 3]: accuracy and loss by noise level as the file keeps them; a white one where it keeps none."""
    info = adp.info
    accuracy, loss = info.get("accuracy_by_log_snr") or {}, info.get("loss_by_log_snr") or {}
    if not any(accuracy.values()) and not any(loss.values()):
        return as_image(np.full((520, 960, 3), 255, dtype=np.uint8))
    moved = {a: m.window for a, m in adp.moves.items() if m.window[0] < m.window[1]}
    return as_image(adp_curves(accuracy, loss, {a: len(c) for a, c in adp.attributes.items()}, moved))


class TrainADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTrainADP",
            display_name="Train ADP",
            category=TRAINING,
            description=(
                "Trains an ADP (attribute distribution predictor; Balancing Act, CVPR 2024) from a feature set and its "
                "labels. It tells you how well it reads each attribute, and from which point of the sampling on. If the run is "
                "interrupted, queue it again and it resumes. Next: Calibrate ADP, then Save ADP."
            ),
            search_aliases=["attribute distribution predictor", "predictor", "h-space", "classifier", "fairness", "balancing act"],
            inputs=[
                Features.Input("features", tooltip="The feature set, from Record Features, Record Features From Images or Load Features."),
                Labels.Input(
                    "labels", tooltip="Labels of this feature set, from one of the Label Features nodes. All their attributes are learned."
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default=KINDS[0],
                    tooltip="'mlp': one small network for all noise levels. 'linear': an affine map per noise level, as in the paper. "
                    "It may read as well or better.",
                ),
                io.Int.Input(
                    "epochs",
                    default=12,
                    min=1,
                    max=1000,
                    tooltip="Maximum number of passes over the features. Training ends earlier if the loss on held-out images stops "
                    "falling.",
                ),
                fixed_seed("Seed of the training. It decides which images are held out, and the order of the others."),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="An ADP of the same model and kind, to which these attributes are added. Its other attributes stay exactly "
                    "as they are. If it holds only directions, it gets its predictor and keeps them.",
                ),
            ],
            outputs=[
                Adp.Output(
                    "trained",
                    display_name="ADP",
                    tooltip="The trained ADP. It reads the attributes, but cannot move images yet. For Calibrate ADP or Save ADP.",
                ),
                io.Image.Output(
                    "curves",
                    display_name="curves",
                    tooltip="Accuracy and loss on held-out images, by noise level. Dotted lines show what guessing would reach.",
                ),
                io.String.Output(
                    "verdict",
                    display_name="verdict",
                    tooltip="How well each attribute is read on held-out images, and from which point of the sampling on.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, features: FeatureSet, labels: LabelSet, kind: str, epochs: int, seed: int, adp: AdpFile | None = None
    ) -> io.NodeOutput:
        made = train_file(features, labels, kind, epochs, seed, extend=adp, progress=host_progress(), device=training_device())
        curves, said = curves_of(made), summary(made)
        return io.NodeOutput(made, curves, said, ui=shown(cls, curves, said))


def summary(adp: AdpFile) -> str:
    """Verdicts, a line per attribute, and what they rest on."""
    lines = []
    for attribute, said in adp.info.get("verdict", {}).items():
        t = adp.info.get("trained", {}).get(attribute, {})
        early = ", the best of them kept" if t.get("best_epoch", 0) < t.get("epochs", 0) else ""
        counts = f"{t['images']} images, {t['held_out']} of them held out; {t['epochs']} epochs{early}, {t['seconds']:g} s" if t else ""
        lines.append(f"{said} ({counts})" if counts else said)
    return "\n".join(lines)


class SaveADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveADP",
            display_name="Save ADP",
            category=TRAINING,
            description=f"Saves an ADP with its moves to {ADP_FOLDER}. Load ADP lists the file. An incomplete file is never left behind.",
            search_aliases=["export", "write", "store", "predictor", "safetensors"],
            is_output_node=True,
            inputs=[
                Adp.Input("adp", tooltip="The ADP to save, from Train ADP or Calibrate ADP."),
                io.String.Input(
                    "name",
                    default="my_adp",
                    tooltip=f"Name of the file in {ADP_FOLDER}, with or without .safetensors. Folders are refused.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="On: replace another file with this name. Off: leave that file as it is and report an error.",
                ),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
        )

    @classmethod
    def execute(cls, adp: AdpFile, name: str, overwrite: bool) -> io.NodeOutput:
        path = ADP_FILES.write(adp, name, overwrite)
        return io.NodeOutput(str(path), ui=ui.PreviewText(ADP_FILES.saved(path)))


class ADPInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseADPInfo",
            display_name="ADP Info",
            category=TRAINING,
            description=(
                "Shows what an ADP file contains: its model, attributes and classes, its accuracy and calibration error by "
                "noise level, and its moves with what they reached in calibration."
            ),
            search_aliases=["describe", "inspect", "metadata", "accuracy", "predictor"],
            is_output_node=True,
            inputs=[Adp.Input("adp", tooltip="The ADP to describe, from Load ADP, Train ADP or Calibrate ADP.")],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="The whole description, line by line."),
                io.Image.Output(
                    "chart", display_name="chart", tooltip="Accuracy and loss on held-out images, by noise level, if the file holds them."
                ),
            ],
        )

    @classmethod
    def execute(cls, adp: AdpFile) -> io.NodeOutput:
        text, chart = describe(adp), curves_of(adp)
        if not adp.info.get("accuracy_by_log_snr"):
            text += f"\n\n{NO_FIGURES}."
        return io.NodeOutput(text, chart, ui=shown(cls, chart, text))


NODES = [TrainADP, SaveADP, ADPInfo]
