"""Train ADP."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core.progress import host_progress, training_device
from ...methods.adp.train import train_adp
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.adp import KINDS, AdpFile
from ..core.inputs import fixed_seed
from ..core.sockets import MAKE, Adp, Features, Labels, schema
from ..core.ui import shown
from .curves import curves_of


class TrainADP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTrainADP",
            display_name="Train ADP",
            category=MAKE,
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
        made = train_adp(features, labels, kind, epochs, seed, extend=adp, progress=host_progress("Train ADP"), device=training_device())
        curves, verdict = curves_of(made), training_summary(made)
        return io.NodeOutput(made, curves, verdict, ui=shown(cls, curves, verdict))


def training_summary(adp: AdpFile) -> str:
    """Write the verdicts, a line per attribute, and what they rest on."""
    lines = []
    for attribute, verdict in adp.info.get("verdict", {}).items():
        t = adp.info.get("trained", {}).get(attribute, {})
        best = f", the best is {t['best_epoch']}" if t and t.get("best_epoch", 0) < t.get("epochs", 0) else ""
        counts = f" ({t['images']} images, {t['held_out']} of them held out; {t['epochs']} epochs{best}, {t['seconds']:g} s)" if t else ""
        lines.append(f"{verdict}{counts}")
    return "\n".join(lines)


NODES = [TrainADP]
