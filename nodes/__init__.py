"""ComfyUI nodes: schemas and a few lines each, one file per node, named after its menu name.

Begin at ``all_nodes``, which ComfyUI calls. The work is done in ``host`` and ``methods``.
"""

from __future__ import annotations

import importlib
from typing import Any

MODULES = (
    "small_models.unconditional",
    "small_models.text_model",
    "adp.load",
    "guidance.target",
    "ledger.ledger",
    "guidance.guidance",
    "guidance.exempt",
    "labels.classifier",
    "report.histogram",
    "report.report",
    "data.recording",
    "labels.label_sources",
    "labels.labels",
    "adp.train",
    "guidance.contrast",
    "guidance.learn",
    "guidance.calibrate",
    "sae.load",
    "bias_features.bias_features",
    "bias_features.steering",
    "bias_features.steer_sweep",
    "bias_features.feature_atlas",
    "sae.train",
    "bias_features.find_bias_features",
    "bias_features.measure_effects",
    "bias_features.learn_profiles",
    "bias_features.calibrate_steering",
    "neuron_path.zero_shot",
    "neuron_path.neuron_path",
    "neuron_path.class_path",
    "neuron_path.neuron_path_files",
    "neuron_path.neuron_audit",
    "neuron_path.neuron_gallery",
    "neuron_path.prune_classifier",
    "neuron_path.neuron_edit",
    "data.datasets",
    "data.train_classifier",
    "data.classifier_fairness",
)
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
