"""Make small random models of the families that ComfyUI samples: its own classes, only narrower. ComfyUI must be importable first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from equipoise_unet import UNET, randomise
from torch import Tensor

FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 48, "hidden_size": 64,
    "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
SD3 = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "adm_in_channels": 32, "pos_embed_max_size": 16,
    "num_patches": 256, "qk_norm": "rms", "context_size": 48,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 128}},
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "in_dim": 16, "out_dim": 16, "dim": 64, "ffn_dim": 128, "freq_dim": 32, "text_dim": 48,
    "num_heads": 2, "num_layers": 2, "text_len": 512,
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 32,
    "num_attention_heads": 2, "joint_attention_dim": 48, "axes_dims_rope": [8, 12, 12],
}  # fmt: skip
SDXL = {**UNET, "adm_in_channels": 32 + 6 * 256, "num_classes": "sequential"}


@dataclass(frozen=True)
class Family:
    """Describe a family of models."""

    config: str
    """The host's class in comfy.supported_models."""
    unet: dict[str, Any]
    """Widths of the network."""
    clip: str
    """The host's class of its text encoder."""
    width: int
    """Width of a token's features."""
    channels: int
    """Channels of a latent."""
    tokens: int | None
    """Tokens of every prompt; None for a number that depends on the prompt."""
    pooled: int | None = None
    """Width of the pooled output, where there is one."""
    is_video: bool = False
    """Whether latents have frames."""


FAMILIES = {
    "SD1.5": Family("SD15", UNET, "SD1ClipModel", 32, 4, 77),
    "SD2": Family("SD20", UNET, "SD2ClipModel", 32, 4, 77),
    "SDXL": Family("SDXL", SDXL, "SDXLClipModel", 32, 4, 77, 32),
    "FLUX": Family("Flux", FLUX, "FluxClipModel_", 48, 16, 256, 32),
    "SD3": Family("SD3", SD3, "SD3ClipModel_", 48, 16, 154, 32),
    "Qwen-Image": Family("QwenImage", QWEN, "QwenImageTEModel_", 48, 16, None),
    "Wan": Family("WAN21_T2V", WAN, "WanTEModel", 48, 16, 512, is_video=True),
}


def family_model(family: Family) -> Any:
    """Make a MODEL with random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.config)(dict(family.unet))
    if family.config in ("SD15", "SD20", "SDXL"):
        config.unet_config["num_heads"], config.unet_config["num_head_channels"] = 4, -1
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    randomise(model.diffusion_model)
    if hasattr(model.diffusion_model, "out"):
        # Without training, a U-Net's noise makes images a hundred times as large as real latents.
        with torch.no_grad():
            model.diffusion_model.out[-1].weight *= 0.01
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def empty_latent(family: Family, images: int) -> dict[str, Any]:
    """Make an empty LATENT of 16 x 16, of two frames for videos."""
    frames = [2] if family.is_video else []
    return {"samples": torch.zeros(images, family.channels, *frames, 16, 16)}


class RandomClip:
    """A CLIP whose features are random and depend on the prompt alone, in the form that the family's text encoder gives them."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.cond_stage_model = type(family.clip, (), {})()

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list[list[Any]]:
        seed = int(hashlib.sha256(tokens.encode()).hexdigest()[:8], 16)
        generator = torch.Generator().manual_seed(seed)
        length = self.family.tokens or 5 + len(tokens.split())
        pooled = None if self.family.pooled is None else torch.randn(1, self.family.pooled, generator=generator)
        return [[torch.randn(1, length, self.family.width, generator=generator), {"pooled_output": pooled}]]


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((a - b).abs().max())
