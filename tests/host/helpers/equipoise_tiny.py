"""Make small random diffusion models, and weights by the formula of the reference data."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from equipoise.models.adm_unet import AdmConfig, AdmUNet
from equipoise.models.files import parameters_of, write_safetensors
from torch import Tensor

BASE = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention": (False, True),
    "num_head_channels": 32,
}
META = {"num_head_channels": "32", "noise_schedule": "linear"}
NAMES = ["cook", "doctor", "fire fighter"]

MODELS: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "plain": ({"in_channels": 3, "out_channels": 3}, {"image_size": "16"}),
    "learned_sigma": ({"in_channels": 3, "out_channels": 6}, {"image_size": "16"}),
    "packed": ({"in_channels": 12, "out_channels": 12}, {"image_size": "32", "pixel_unshuffle": "2"}),
    "half_width": ({"in_channels": 3, "out_channels": 3, "model_channels": 64, "channel_mult": (0.5, 1)}, {"image_size": "16"}),
    "cosine": ({"in_channels": 3, "out_channels": 3}, {"image_size": "16", "noise_schedule": "cosine"}),
    "classes": (
        {"in_channels": 3, "out_channels": 3, "num_classes": 4},
        {"image_size": "16", "null_label": "3", "class_names": json.dumps(NAMES)},
    ),
    "no_null": ({"in_channels": 3, "out_channels": 6, "num_classes": 10}, {"image_size": "16"}),
}
"""File name without suffix -> (what differs from BASE, what differs from META)."""


def tiny(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return state dict and metadata of one of MODELS, the same at every call."""
    torch.manual_seed(7)
    config, meta = MODELS[name]
    return parameters_of(AdmUNet(AdmConfig(**{**BASE, **config}))), {**META, **meta}


def write_tiny_models(folder: Path) -> Path:
    """Write all of MODELS as safetensors files and return the folder."""
    for name in MODELS:
        write_safetensors(folder / f"tiny_{name}.safetensors", *tiny(name))
    return folder


