"""Find Bias Features: search with the host's progress and device, and train a predictor if none is connected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...methods.adp.train import train_adp
from ...methods.bias_features.ablation import ablation_lines
from ...methods.bias_features.code_stream import check_set
from ...methods.bias_features.find import AttributionSettings, find_bias_features, reader_of
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures
from ...models.sae import SaeFile
from ..core.progress import host_progress, training_device

NODE = "Find Bias Features"


def find_features(
    features: FeatureSet,
    labels: LabelSet,
    sae: SaeFile,
    adp: AdpFile | None,
    attributes: Sequence[str],
    settings: AttributionSettings,
) -> tuple[BiasFeatures, list[str]]:
    """Find the bias features of these attributes (without any, of all that are labelled).

    Return them and a report.

    ``adp``: reads at the autoencoder's site; without one, a linear predictor of all labelled attributes is trained on the set first. Raises
    ValueError if the inputs do not fit each other; the host's exception if the user interrupts.
    """
    wanted = list(attributes) or list(labels.attributes)
    labels.only(wanted)
    check_set(features, sae)
    labels, lines = _without_empty(labels, wanted)
    if adp is None:
        progress = host_progress(f"{NODE}, predictor")
        adp = train_adp(features, labels, "linear", seed=settings.seed, progress=progress, device=training_device())
        lines += [f"a linear predictor was trained: {verdict}" for verdict in adp.info["verdict"].values()]
    predictor = reader_of(adp, sae)
    with torch.inference_mode(False):  # gradients may be taken of the predictor
        predictor, plain = predictor.copied(), replace(sae, sae=sae.sae.copied(), stored_digest=sae.digest)
        bias = find_bias_features(features, labels, plain, predictor, wanted, settings, host_progress(NODE), training_device())
    return bias, [*bias.text().splitlines(), *(line for a in wanted for line in ablation_lines(bias, a)), *lines]


def _without_empty(labels: LabelSet, wanted: Sequence[str]) -> tuple[LabelSet, list[str]]:
    """Leave out attributes with a class that no image shows, unless they are wanted.

    Return the labels and a line on each.

    Such an attribute would otherwise stop the search for the others.
    """
    empty = {a: [c for c, n in zip(classes, labels.counts(a), strict=True) if not n] for a, classes in labels.attributes.items()}
    left_out = [a for a in labels.attributes if empty[a] and a not in wanted]
    lines = [f"what the features carry of '{a}' was not measured: no image shows {', '.join(empty[a])}" for a in left_out]
    return labels.only([a for a in labels.attributes if a not in left_out]), lines
