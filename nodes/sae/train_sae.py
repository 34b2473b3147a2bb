"""Train SAE."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...charts.sae.report import sae_curves
from ...host.sae.train import SAE_FILES, train_and_save_sae
from ...methods.data.feature_set import FeatureSet
from ...methods.sae.training import SaeSettings
from ...models.sae import ACTIVATIONS, SaeFile
from ..core.inputs import file_name_input, fixed_seed, overwrite_input
from ..core.sockets import LAB, Features, Sae, schema
from ..core.ui import as_image, shown

DEFAULT = SaeSettings()
SAE_FOLDER = "models/equipoise/sae"


class TrainSAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseTrainSAE",
            display_name="Train SAE",
            category=LAB,
            description=(
                "Trains a k-sparse autoencoder (SAE; DiffLens, CVPR 2025) on a feature set. It decomposes every position "
                "of a U-Net's map into a few of many features. If the run is interrupted, queue it again and it resumes. Next: "
                "Find Bias Features."
            ),
            search_aliases=["sparse autoencoder", "k-sparse", "dictionary", "difflens", "interpretability", "topk", "h-space"],
            is_output_node=True,
            inputs=[
                Features.Input(
                    "features",
                    tooltip="A feature set recorded with spatial_levels, from Record Features, Record Features From Images or Load "
                    "Features. The autoencoder belongs to the site of the set.",
                ),
                file_name_input("my_sae", SAE_FOLDER),
                io.Int.Input(
                    "latents",
                    default=DEFAULT.latents,
                    min=0,
                    max=1_000_000,
                    tooltip="Number of features of the autoencoder. 0 is eight times the number of channels of the site.",
                ),
                io.Int.Input(
                    "k",
                    default=DEFAULT.k,
                    min=1,
                    max=4096,
                    tooltip="Number of features that are active at a position. With more, they explain more of the map, and each means "
                    "less.",
                ),
                io.Combo.Input(
                    "activation",
                    options=list(ACTIVATIONS),
                    default=DEFAULT.activation,
                    tooltip="'topk': exactly k features at every position. 'batch-topk': k features on average, so that busy positions "
                    "get more of them.",
                ),
                io.Int.Input("steps", default=DEFAULT.steps, min=1, max=10_000_000, tooltip="Number of training steps."),
                io.Int.Input(
                    "batch",
                    default=DEFAULT.batch,
                    min=1,
                    max=1_048_576,
                    tooltip="Number of positions per step. They come from many images and noise levels.",
                ),
                fixed_seed("Seed of the training. It decides which images are held out, and the order of the positions."),
                overwrite_input(),
            ],
            outputs=[
                Sae.Output("trained", display_name="SAE", tooltip="The autoencoder, for Find Bias Features. It is also saved."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Share of the variance of held-out images that stays unexplained, active and dead features, time, and the "
                    "file.",
                ),
                io.Image.Output("chart", display_name="chart", tooltip="Unexplained share by noise level, and the loss by step."),
            ],
        )

    @classmethod
    def execute(cls, features: FeatureSet, name: str, overwrite: bool, **widgets: Any) -> io.NodeOutput:
        settings = SaeSettings(**{n: widgets[n] for n in ("latents", "k", "activation", "steps", "batch", "seed")})
        made, path = train_and_save_sae(features, settings, name, overwrite)
        report = f"{made.text()}\n{training_cost(made)}\nsaved: {SAE_FILES.saved_text(path)}"
        chart = as_image(sae_curves(made.info["fvu_by_log_snr"], made.info["trained"]["loss"]))
        return io.NodeOutput(made, report, chart, ui=shown(cls, chart, report))


def training_cost(sae: SaeFile) -> str:
    """Describe the length and speed of a training."""
    t = sae.info["trained"]
    return (
        f"{t['steps']} steps of {t['batch']} positions from {t['images']} images ('{t['features']}', {t['kind']}); {t['seconds']:g} s, "
        f"{t['tokens_per_second']:,} positions per second"
    )


NODES = [TrainSAE]
