"""Find Bias Features."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ...host.bias_features.find_features import find_features
from ...methods.bias_features.find import AttributionSettings
from ..core.inputs import fixed_seed, names_of
from ..core.sockets import LAB, Adp, BiasFeatures, Features, Labels, Sae, schema
from ..core.ui import shown
from .ranking_chart import ranking_image

DEFAULT = AttributionSettings()


class FindBiasFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseFindBiasFeatures",
            display_name="Find Bias Features",
            category=LAB,
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
        settings = AttributionSettings(tau=per_class, max_side_effect=beside or math.inf, seed=seed)
        bias, lines = find_features(features, labels, sae, adp, names_of(attribute), settings)
        report, chart = "\n".join(lines), ranking_image(bias)
        return io.NodeOutput(bias, report, chart, ui=shown(cls, chart, report))


NODES = [FindBiasFeatures]
