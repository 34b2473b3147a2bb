"""Make a small random text-to-image file. ComfyUI must be importable first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

UNET = {
    "in_channels": 12,
    "out_channels": 12,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 32,
    "num_head_channels": 16,
}
CLIP = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tiny_net(seed: int = 7) -> tuple[Any, Any]:
    """Make (TextNet, Tokens) with the shape above.

    Weights that training starts at zero are random too.
    """
    from equipoise.factory.captions import vocabulary
    from equipoise.factory.text_training import TextNet, Tokens

    tokens = Tokens(vocabulary())
    torch.manual_seed(seed)
    net = TextNet(len(tokens.ids), UNET, CLIP)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(net.text.embeddings.token_embedding.weight)  # or the words would hardly differ
    return net.half().float().eval().requires_grad_(False), tokens


def write_tiny_text(path: Path, seed: int = 7) -> Path:
    """Write the net as a file for Load Quickstart Text Model."""
    from equipoise.factory.text_training import export_text_model

    net, tokens = tiny_net(seed)
    export_text_model(net, tokens.ids, path, {"note": "random"})
    return path
