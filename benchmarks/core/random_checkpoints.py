"""Make full-width checkpoints of SD 1.5 and SDXL with random weights and little memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PREFIX = "model.diffusion_model."
_COMMON: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "sd15": _COMMON
    | {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": 768,
        "num_heads": 8,
        "num_head_channels": -1,
        "use_linear_in_transformer": False,
    },
    "sdxl": _COMMON
    | {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
        "num_heads": -1,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}
"""ComfyUI's settings for the U-Nets of SD 1.5 (859.5 million parameters) and SDXL (2567.5 million)."""


def shapes(name: str) -> dict[str, torch.Size]:
    """Read the parameter shapes of a U-Net, by their names in a checkpoint.

    They come from ComfyUI's own network on the meta device, which holds no weights.
    """
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    network = UNetModel(**CONFIGS[name], device="meta", operations=comfy.ops.disable_weight_init)
    return {PREFIX + key: value.shape for key, value in network.state_dict().items()}


def random_weights(name: str) -> dict[str, Tensor]:
    """Make random weights for a U-Net; see random_tensors."""
    return random_tensors(shapes(name))


def random_tensors(named: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Make float16 weights that share a few megabytes.

    Each matrix is a window into one row of noise, scaled by 1 / sqrt(fan in).
    """
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(11))
    scaled: dict[int, Tensor] = {}
    weights = {}
    for key, shape in named.items():
        if len(shape) == 1:
            weights[key] = (torch.zeros if key.endswith("bias") else torch.ones)(1, dtype=torch.float16).expand(shape)
            continue
        fan = math.prod(shape[1:])
        row = scaled.setdefault(fan, (noise / fan**0.5).half())
        # Row o of the matrix begins at 83 o (a table of tokens: nearer), so that rows overlap but no two are equal.
        step = min(83, (len(noise) - fan) // shape[0])
        inner = [math.prod(shape[i + 1 :]) for i in range(1, len(shape))]
        weights[key] = row.as_strided(shape, (step, *inner))
    return weights


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write float16 tensors to a safetensors file one at a time; strided tensors become contiguous."""
    header, at = {}, 0
    for key, value in tensors.items():
        end = at + 2 * value.numel()
        header[key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(head)) + head)
        for value in tensors.values():
            stream.write(memoryview(value.contiguous().numpy()).cast("B"))


def random_conditioning(name: str, seed: int) -> list[list[Any]]:
    """Make CONDITIONING with random text features of the right width."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, 77, CONFIGS[name]["context_dim"], generator=generator)
    pooled = {"pooled_output": torch.randn(1, 1280, generator=generator)} if "adm_in_channels" in CONFIGS[name] else {}
    return [[text, pooled]]
