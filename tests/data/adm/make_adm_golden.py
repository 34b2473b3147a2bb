"""Make ``adm_golden.safetensors``: outputs of the original guided-diffusion U-Net on weights that anyone can rebuild.

    python make_adm_golden.py FOLDER_OF_A_GUIDED_DIFFUSION_CHECKOUT

Made with openai/guided-diffusion at commit 22e0df8183507e13a7813f8d38d51b072ca1e67c and torch 2.11.0, float32, CPU. Weights and inputs come
from NumPy's legacy generator, whose stream is frozen, so only the middle block and the output are stored. The weights have full rank: a
network of such weights carries rounding errors through without enlarging them, and the comparison holds on any machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).with_name("adm_golden.safetensors")
SIDE, BATCH = 16, 2
TIMESTEPS = (17.25, 873.0)
LABELS = (3, 0)

COMMON = {
    "image_size": SIDE,
    "in_channels": 3,
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_resolutions": (2,),
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {**COMMON, "out_channels": 3, "num_heads": 1},
    "updown": {
        **COMMON,
        "out_channels": 6,
        "channel_mult": (1, 1, 2),
        "num_head_channels": 16,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
    "new_order": {**COMMON, "out_channels": 3, "attention_resolutions": (1, 2), "num_head_channels": 16, "use_new_attention_order": True},
    "conditional": {**COMMON, "out_channels": 3, "num_res_blocks": 2, "num_heads": 4, "num_classes": 10, "use_scale_shift_norm": True},
    "conditional_updown": {
        **COMMON,
        "out_channels": 6,
        "num_res_blocks": 2,
        "num_head_channels": 32,
        "num_classes": 5,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "use_new_attention_order": True,
    },
}
"""Arguments of the original's UNetModel."""


def weights(parameters: Mapping[str, Iterable[int]]) -> dict[str, Tensor]:
    """float32 weights for parameter names and shapes: the n-th in order of name is drawn from seed n."""
    drawn = {}
    for n, name in enumerate(sorted(parameters)):
        shape = tuple(parameters[name])
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 64
        value = np.random.RandomState(n).standard_normal(shape) / math.sqrt(fan_in)
        if len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.1 * value
        drawn[name] = torch.from_numpy(value.astype(np.float32))
    return drawn


def inputs(config: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """x float32 [2, 3, 16, 16], timesteps float32 [2], and y int64 [2] where the case has classes."""
    x = np.random.RandomState(1000).standard_normal((BATCH, config["in_channels"], SIDE, SIDE))
    y = torch.tensor(LABELS) if config.get("num_classes") else None
    return torch.from_numpy(x.astype(np.float32)), torch.tensor(TIMESTEPS), y


def main(checkout: str) -> None:
    """Run the original and write the file."""
    import json

    from safetensors.torch import save_file

    sys.path.insert(0, checkout)
    from guided_diffusion.unet import UNetModel  # the original, on the path by the line above

    stored, shapes = {}, {}
    for name, config in CASES.items():
        net = UNetModel(**config).eval()
        shapes[name] = {k: list(v.shape) for k, v in net.state_dict().items()}
        net.load_state_dict(weights(shapes[name]))
        x, t, y = inputs(config)
        seen: list[Tensor] = []
        net.middle_block.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        with torch.no_grad():
            stored[f"{name}.out"] = net(x, t, **({} if y is None else {"y": y})).contiguous()
        stored[f"{name}.h"] = seen[0].contiguous()
    save_file(stored, str(FILE), metadata={"shapes": json.dumps(shapes, separators=(",", ":"))})


if __name__ == "__main__":
    main(sys.argv[1])
