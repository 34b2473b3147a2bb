"""Make a small random CLIP that the host loads: image and text encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WIDTH, SEEN, SIZE, PATCH, MLP, DEPTH, HEADS = 64, 96, 32, 8, 112, 3, 2
LAYERS = {"num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": MLP, "hidden_act": "quick_gelu"}


def tiny_clip(seed: int = 0) -> dict[str, Tensor]:
    """Make weights of both encoders under transformers' names.

    They are large enough that different images and texts give different results.
    """
    import transformers

    torch.manual_seed(seed)
    text = {**LAYERS, "hidden_size": WIDTH, "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407}
    vision = {**LAYERS, "hidden_size": SEEN, "image_size": SIZE, "patch_size": PATCH}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    network = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5 if "embedding" in name else 0.15)
    return {k: v.detach().half().float() for k, v in network.state_dict().items() if not k.endswith("position_ids")}


def part(state: dict[str, Tensor], *starts: str) -> dict[str, Tensor]:
    """Select the weights whose names start with a prefix."""
    return {k: v.clone() for k, v in state.items() if k.startswith(starts)}


def host_vision(state: dict[str, Tensor], folder: Path, **changed: Any) -> Any:
    """Load the host's CLIP_VISION. ``changed``: entries of its configuration."""
    from comfy.clip_vision import ClipVisionModel

    config = {
        **LAYERS,
        "hidden_size": SEEN,
        "image_size": SIZE,
        "patch_size": PATCH,
        "num_channels": 3,
        "projection_dim": WIDTH,
        "model_type": "clip_vision_model",
        **changed,
    }
    (folder / "tiny_vision.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8")
    vision = ClipVisionModel(str(folder / "tiny_vision.json"))
    vision.load_sd(part(state, "vision_model", "visual_projection"))
    return vision


def host_text(state: dict[str, Tensor], projection: bool = True) -> Any:
    """Load the host's CLIP as its Load CLIP does.

    The host leaves a missing projection uninitialised.
    """
    import comfy.sd

    small = {"hidden_size": WIDTH, **{k: LAYERS[k] for k in LAYERS if k != "hidden_act"}}
    options = {"clip_l_model_config": dict(small), "model_config": dict(small)}
    starts = ("text_model", "text_projection") if projection else ("text_model",)
    return comfy.sd.load_text_encoder_state_dicts([part(state, *starts)], model_options=options)
