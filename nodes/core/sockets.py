"""Socket types and menu categories of the pack, and the schema of a node for this host."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core.versions import known_arguments

Adp = io.Custom("EQUIPOISE_ADP")
"""An attribute distribution predictor (models/adp.py)."""

Target = io.Custom("EQUIPOISE_TARGET")
"""A target distribution (methods/core/targets.py)."""

Classifier = io.Custom("EQUIPOISE_CLASSIFIER")
"""An attribute classifier (models/attribute_classifier.py)."""

Features = io.Custom("EQUIPOISE_FEATURES")
"""A feature set (methods/data/feature_set.py)."""

Labels = io.Custom("EQUIPOISE_LABELS")
"""Labels of a feature set's images (methods/labels/labels.py)."""

Sae = io.Custom("EQUIPOISE_SAE")
"""A sparse autoencoder with its site (models/sae.py)."""

BiasFeatures = io.Custom("EQUIPOISE_BIAS_FEATURES")
"""Features of an autoencoder that carry attributes, and how they are turned (models/bias_features.py)."""

NeuronPaths = io.Custom("EQUIPOISE_NEURON_PATH")
"""Paths of neurons through a vision transformer (models/neuron_path.py)."""

ZeroShot = io.Custom("EQUIPOISE_ZERO_SHOT_HEAD")
"""An attribute whose classes are texts, for CLIP (models/zero_shot_head.py)."""

Dataset = io.Custom("EQUIPOISE_DATASET")
"""Labelled images on disk (methods/datasets/image_folder.py)."""

Ledger = io.Custom("EQUIPOISE_LEDGER")
"""Which balance ledger, and which group in it (host/ledger/ledgers.py); no counts."""

LOADERS = "equipoise/loaders"
GUIDANCE = "equipoise/guidance"
STEERING = "equipoise/steering"
EVALUATION = "equipoise/evaluation"
LATENT = "equipoise/latent"
TRAINING = "equipoise/training"
DATA = "equipoise/data"
NEURONS = "equipoise/neurons"


def schema(**arguments: object) -> io.Schema:
    """Make a node's schema for this host.

    Arguments that its ``io.Schema`` does not know are left out (search_aliases on older ones).
    """
    return io.Schema(**known_arguments(arguments))
