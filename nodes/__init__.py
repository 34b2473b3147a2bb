"""The pack's nodes. Importing this package imports none of them: :func:`all_nodes` does."""

from __future__ import annotations

import importlib
from typing import Any

MODULES = (
    "unconditional", "text_model", "adp", "target", "ledger", "guidance", "exempt", "classifier", "histogram", "report",
    "recording", "label_sources", "labels", "training", "contrast", "learn", "calibrate", "sae", "bias_features", "steering", "steer_sweep",
    "feature_atlas", "train_sae", "find_bias_features", "measure_effects", "learn_profiles", "calibrate_steering",
    "zero_shot", "neuron_path", "class_path", "neuron_path_files", "neuron_audit", "neuron_gallery", "prune_classifier", "neuron_edit",
    "datasets", "train_classifier", "classifier_fairness",
)  # fmt: skip
"""Files of this folder that hold nodes, in menu order; each ends with a list NODES. A new file is added here."""


def all_nodes() -> list[type[Any]]:
    """Import the files and return their node classes. Any failure is raised: half a pack is worse than none.

    Schemas are made here once, so that one that this host refuses is reported with the node's name (RuntimeError).
    """
    found: list[type[Any]] = []
    for name in MODULES:
        found += importlib.import_module(f".{name}", __package__).NODES
    for node in found:
        try:
            node.GET_SCHEMA()
        except Exception as error:
            raise RuntimeError(f"this version of ComfyUI refuses the schema of {node.__name__}: {error}") from error
    return found
