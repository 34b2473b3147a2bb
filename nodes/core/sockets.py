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

MAIN = "equipoise"
"""Menu of the nodes that everybody needs."""
MAKE = "equipoise/make"
"""Menu of the nodes that make an ADP."""
MEASURE = "equipoise/measure"
"""Menu of the nodes that show and measure."""
DATA = "equipoise/data"
"""Menu of the nodes for data sets of labelled images."""
SMALL_MODELS = "equipoise/small models"
"""Menu of the nodes for the small models that ship with the pack."""
LAB = "equipoise/lab"
"""Menu of the experimental nodes: neurons, autoencoders, sweeps."""


def schema(**arguments: object) -> io.Schema:
    """Make a node's schema for this host.

    Arguments that its ``io.Schema`` does not know are left out (search_aliases on older ones). Nodes of the lab are marked as experimental.
    """
    return io.Schema(**known_arguments({"is_experimental": arguments["category"] == LAB, **arguments}))


def assigned_output() -> io.Output:
    """Make the output 'assigned' of a node that decides the classes."""
    return io.String.Output(
        "assigned",
        display_name="assigned",
        tooltip="The class that every image was assigned, in the order of the batch. For Attribute Histogram and Record Attributes.",
    )
