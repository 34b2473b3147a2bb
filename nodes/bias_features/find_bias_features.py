"""Find Bias Features and Save Bias Features."""

from __future__ import annotations

import math
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...charts.bias_features.ranking import bias_features_chart
from ...host.bias_features.find_features import find_features
from ...host.core.files import FileKind
from ...methods.bias_features.attribution_settings import AttributionSettings
from ...methods.bias_features.feature_profiles import chart_facts
from ...models.bias_features import BiasFeatures as BiasFeaturesFile
from ...models.bias_features import save_bias_features
from ..core.shared_inputs import fixed_seed, names_of
from ..core.sockets import TRAINING, Adp, BiasFeatures, Features, Labels, Sae, schema
from ..core.ui import as_image, shown
from ..guidance.calibrate import stacked_images

BIAS_FEATURE_FILES = FileKind("equipoise_bias_features", "bias features", save_bias_features)
FOLDER = BIAS_FEATURE_FILES.folder
DEFAULT = AttributionSettings()


class FindBiasFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFindBiasFeatures",
            display_name="Find Bias Features",
            category=TRAINING,
            description=(
                "Finds the features of an autoencoder that carry a perceived attribute (after DiffLens, CVPR 2025), with "
                "integrated gradients, a bootstrap and an ablation test. Next: Measure Feature Effects (what a change of them does), or "
                "Learn Feature Profiles; then Calibrate Bias Features and Save Bias Features."
            ),
            search_aliases=["difflens", "attribution", "integrated gradients", "sparse autoencoder", "interpretability", "neurons"],
            inputs=[
                Features.Input(
                    "features", tooltip="A feature set recorded at the autoencoder's site, from Record Features or Load Features."
                ),
                Labels.Input(
                    "labels", tooltip="Labels of that set. Labels of further attributes show which features carry more than one attribute."
                ),
                Sae.Input("sae", tooltip="The sparse autoencoder, from Train SAE or Load SAE."),
                io.String.Input(
                    "attribute", default="", tooltip="Attributes to find features for, separated by commas. Empty: all labelled attributes."
                ),
                io.Int.Input("per_class", default=DEFAULT.tau, min=1, max=4096, tooltip="Largest number of features to keep per class."),
                io.Float.Input(
                    "beside",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="Leaves out features that carry more than this many times as much of other attributes as of this one. 0 "
                    "keeps all.",
                ),
                fixed_seed(
                    "Decides which images are held out for the test, the resamples of the bootstrap, and the training of the "
                    "linear predictor."
                ),
                Adp.Input(
                    "adp",
                    optional=True,
                    tooltip="A predictor at the autoencoder's site, from Train ADP on a set recorded there. Without one, the node first "
                    "trains a linear predictor on the set.",
                ),
            ],
            outputs=[
                BiasFeatures.Output(
                    "found",
                    display_name="bias features",
                    tooltip="The ranked features with class-difference profiles, not calibrated yet. For Measure Feature Effects, Learn "
                    "Feature Profiles or Calibrate Bias Features.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="What was found, and how the reading changes without these features."
                ),
                io.Image.Output("chart", display_name="chart", tooltip="The ranked features of each class. One picture per attribute."),
            ],
        )

    @classmethod
    def execute(
        cls,
        features: Any,
        labels: Any,
        sae: Any,
        attribute: str,
        per_class: int,
        beside: float,
        seed: int,
        adp: Any = None,
    ) -> io.NodeOutput:
        settings = AttributionSettings(tau=per_class, beside=beside or math.inf, seed=seed)
        found, lines = find_features(features, labels, sae, adp, names_of(attribute), settings)
        report, chart = "\n".join(lines), charts_of(found)
        return io.NodeOutput(found, report, chart, ui=shown(cls, chart, report))


def charts_of(found: BiasFeaturesFile) -> torch.Tensor:
    """IMAGE with a picture per attribute.

    A white one where no feature speaks for any class.
    """
    speaking = [a for a, f in found.attributes.items() if bool((f.scores > 0).any())]
    charts = [as_image(bias_features_chart(a, **chart_facts(found.attribute(a)))) for a in speaking]
    return stacked_images(charts or [torch.ones(1, 240, 960, 3)])


class SaveBiasFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseSaveBiasFeatures",
            display_name="Save Bias Features",
            category=TRAINING,
            description=f"Saves bias features to {FOLDER}. Load Bias Features lists the file. An incomplete file is never left behind.",
            search_aliases=["export", "write", "store", "difflens", "safetensors"],
            is_output_node=True,
            inputs=[
                BiasFeatures.Input(
                    "bias_features",
                    tooltip="The bias features to save, from Find Bias Features, Learn Feature Profiles or Calibrate Bias Features.",
                ),
                io.String.Input(
                    "name",
                    default="my_bias_features",
                    tooltip=f"Name of the file in {FOLDER}, with or without .safetensors. Folders are refused.",
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
    def execute(cls, bias_features: BiasFeaturesFile, name: str, overwrite: bool) -> io.NodeOutput:
        path = BIAS_FEATURE_FILES.write(bias_features, name, overwrite)
        return io.NodeOutput(str(path), ui=ui.PreviewText(BIAS_FEATURE_FILES.saved(path)))


NODES = [FindBiasFeatures, SaveBiasFeatures]
