"""Find Bias Features: a search with the host's progress and device, and a reader for it where none is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...methods.adp.train import train_adp
from ...methods.bias_features.ablation_report import ablation_lines
from ...methods.bias_features.attribution_settings import AttributionSettings
from ...methods.bias_features.code_stream import check_set
from ...methods.bias_features.find import find_bias_features, reader_of
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.labels import LabelSet
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures
from ...models.sae import SaeFile
from ..core.fit.session import plain_predictor
from ..core.progress import host_progress, training_device
from .learn_profiles import plain_sae


def find_features(
    features: FeatureSet,
    labels: LabelSet,
    sae: SaeFile,
    adp: AdpFile | None,
    attributes: Sequence[str],
    settings: AttributionSettings,
) -> tuple[BiasFeatures, list[str]]:
    """Bias features of these attributes (none: of all that are labelled), and a report.

    ``adp``: reads at the autoencoder's site; None: a linear reader of all that is labelled is trained on the set first. Raises ValueError,
    in a sentence, where the parts do not fit each other; the host's exception where the user interrupts.
    """
    wanted = list(attributes) or list(labels.attributes)
    labels.only(wanted)
    check_set(features, sae)
    labels, lines = _without_empty(labels, wanted)
    if adp is None:
        adp = train_adp(features, labels, "linear", seed=settings.seed, progress=host_progress(), device=training_device())
        lines += [f"a linear reader was trained: {said}" for said in adp.info["verdict"].values()]
    reader = reader_of(adp, sae)
    with torch.inference_mode(False):  # gradients may be taken of the reader
        reader, plain = plain_predictor(reader), replace(sae, sae=plain_sae(sae.sae), stored_digest=sae.digest)
        found = find_bias_features(features, labels, plain, reader, wanted, settings, host_progress(), training_device())
    return found, [*found.text().splitlines(), *(line for a in wanted for line in ablation_lines(found, a)), *lines]


def _without_empty(labels: LabelSet, wanted: Sequence[str]) -> tuple[LabelSet, list[str]]:
    """The labels without attributes of which a class was never seen, so that one that nobody asked for does not stand in the way of those
    that are wanted; and a line on each that is left out."""
    empty = {a: [c for c, n in zip(classes, labels.counts(a), strict=True) if not n] for a, classes in labels.attributes.items()}
    left_out = [a for a in labels.attributes if empty[a] and a not in wanted]
    lines = [f"what features carry of '{a}' beside is not told: no image shows {', '.join(empty[a])}" for a in left_out]
    return labels.only([a for a in labels.attributes if a not in left_out]), lines
