"""ComfyUI nodes: schemas and a few lines each, one file per node, named after its menu name.

Begin at ``all_nodes``, which ComfyUI calls. The work is done in ``host`` and ``methods``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import io

MODULES = (
    "small_models.load_unconditional_diffusion",
    "small_models.class_label",
    "small_models.empty_pixel_latent",
    "small_models.load_quickstart_text_model",
    "adp.load_adp",
    "guidance.target_distribution",
    "prompts.balanced_prompts",
    "prompts.images_in_batch_order",
    "ledger.balance_ledger",
    "ledger.record_attributes",
    "ledger.ledger_report",
    "guidance.distribution_guidance",
    "guidance.distribution_guidance_ksampler",
    "guidance.exempt_from_guidance",
    "labels.load_attribute_classifier",
    "labels.clip_attribute_classifier",
    "report.attribute_histogram",
    "report.fairness_report",
    "data.record_features",
    "data.record_features_from_images",
    "data.load_features",
    "labels.label_features_with_classifier",
    "labels.label_features_with_clip",
    "labels.label_features_with_skin_tone",
    "labels.label_features_from_prompts",
    "labels.label_features_from_csv",
    "labels.label_features",
    "labels.merge_labels",
    "adp.train_adp",
    "adp.save_adp",
    "adp.adp_info",
    "guidance.contrast_directions",
    "guidance.learn_directions",
    "guidance.learn_directions_from_prompts",
    "guidance.calibrate_adp",
    "sae.load_sae",
    "bias_features.load_bias_features",
    "bias_features.bias_feature_steer",
    "bias_features.steer_sweep",
    "bias_features.feature_atlas",
    "sae.train_sae",
    "bias_features.find_bias_features",
    "bias_features.save_bias_features",
    "bias_features.measure_feature_effects",
    "bias_features.learn_feature_profiles",
    "bias_features.calibrate_bias_features",
    "neuron_path.zero_shot_attribute_head",
    "neuron_path.find_neuron_path",
    "neuron_path.baseline_paths",
    "neuron_path.class_path",
    "neuron_path.save_neuron_path",
    "neuron_path.load_neuron_path",
    "neuron_path.neuron_path_effect",
    "neuron_path.attribute_leakage_audit",
    "neuron_path.neuron_gallery",
    "neuron_path.prune_classifier_curve",
    "neuron_path.edit_vision_neurons",
    "datasets.save_balanced_dataset",
    "datasets.load_dataset",
    "datasets.train_attribute_classifier",
    "datasets.classifier_fairness",
)
"""Files of this folder that hold nodes, in menu order; each ends with a list NODES. A new file is added here."""


def all_nodes() -> list[type[io.ComfyNode]]:
    """Import the files and return their node classes.

    Any failure is raised: half a pack is worse than none.

    Schemas are made here once, so that one that this host refuses is reported with the node's name (RuntimeError).
    """
    nodes: list[type[io.ComfyNode]] = []
    for name in MODULES:
        nodes += importlib.import_module(f".{name}", __package__).NODES
    for node in nodes:
        try:
            node.GET_SCHEMA()
        except Exception as error:
            raise RuntimeError(f"this version of ComfyUI refuses the schema of {node.__name__}: {error}") from error
    return nodes
