"""The small text-to-image model in training: its network of the host's classes, its start, its tokens and its file.

``dev.py train-portraits text`` imports this module after it has booted the host: only the host's own classes give the parameter names and
the arithmetic that the loader will meet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.ops
import comfy.sd1_clip
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ..host.small_models.adm_info import TEXT_FORMAT
from ..host.small_models.text_model import BASE_MODEL, CLIP_KEYS, UNET_KEYS, operations, unet_config
from ..models.files import parameters_of, read_safetensors, write_safetensors

GROUPS = 8
CLIP = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
UNET = {
    "in_channels": 12,
    "out_channels": 12,
    "model_channels": 32,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 3],
    "transformer_depth": [0, 1, 0],
    "transformer_depth_output": [0, 0, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": CLIP["hidden_size"],
    "num_head_channels": 16,
}
"""SD1.5's plan at width 32: transformers above the lowest level, none in it, one in the middle block. The 16x16 level goes without, because
there they make a step half as dear again."""


class Tokens:
    """Captions as rows of a small token table: int64 [N, 77].

    The table holds only the tokens of one text, with start and end.
    """

    def __init__(self, vocabulary: str) -> None:
        self.tokenizer = comfy.sd1_clip.SDTokenizer()
        special = {self.tokenizer.start_token, self.tokenizer.end_token, self.tokenizer.pad_token}
        self.ids = sorted({t for section in self._sections(vocabulary) for t in section} | special)
        self.rows = {token: row for row, token in enumerate(self.ids)}
        self._known: dict[str, list[int]] = {}

    def _sections(self, text: str) -> list[list[int]]:
        return [[int(pair[0]) for pair in section] for section in self.tokenizer.tokenize_with_weights(text)]

    def __call__(self, captions: list[str]) -> Tensor:
        """Raises KeyError where a caption holds a token that is not in the table."""
        for text in captions:
            if text not in self._known:
                (section,) = self._sections(text)
                self._known[text] = [self.rows[t] for t in section]
        return torch.tensor([self._known[text] for text in captions])


def _pause(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copy a norm's input before the host changes it in place.

    A forward pre-hook: backward needs the input as it was.
    """
    return (args[0].clone(), *args[1:])


class TextNet(nn.Module):
    """U-Net and CLIP text model, trained together.

    The token table has only the rows in use.
    """

    def __init__(
        self, tokens: int, unet: Mapping[str, Any] | None = None, clip: Mapping[str, int] | None = None, groups: int = GROUPS
    ) -> None:
        super().__init__()
        self.stated, self.text_stated, self.groups = dict(unet or UNET), dict(clip or CLIP), groups
        ops = comfy.ops.disable_weight_init
        self.unet = UNetModel(**unet_config(self.stated, torch.float32), device=torch.device("cpu"), operations=operations(ops, groups))
        fixed = {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 49407}
        self.text = comfy.clip_model.CLIPTextModel_({**fixed, **self.text_stated}, torch.float32, torch.device("cpu"), ops)
        self.text.embeddings.token_embedding = nn.Embedding(tokens, self.text_stated["hidden_size"])
        self._initialise()

    def _initialise(self) -> None:
        """Set the initial values, which the host's classes leave out.

        torch's own; the last layer of every residual branch starts at zero.

        In the text model it starts small, and words start large: with embeddings of 0.05 the layers' outputs drowned them, so that after
        7,000 steps "with" and "without" still gave the same context within 1%.
        """
        for module in self.modules():
            for kind in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm):
                if isinstance(module, kind):
                    kind.reset_parameters(module)
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
        nn.init.normal_(self.text.embeddings.token_embedding.weight, std=1.0)
        nn.init.normal_(self.text.embeddings.position_embedding.weight, std=0.2)
        for module in self.unet.modules():
            if hasattr(module, "out_layers"):
                nn.init.zeros_(module.out_layers[3].weight)
            if hasattr(module, "proj_out"):
                nn.init.zeros_(module.proj_out.weight)
                nn.init.zeros_(module.proj_out.bias)
        nn.init.zeros_(self.unet.out[2].weight)
        for layer in self.text.encoder.layers:
            for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                last.weight.data.mul_(0.3)
                nn.init.zeros_(last.bias)
            layer.layer_norm1.register_forward_pre_hook(_pause)
            layer.layer_norm2.register_forward_pre_hook(_pause)

    def context(self, tokens: Tensor) -> Tensor:
        """Compute the context of tokens: [B, 77, width].

        tokens int64 [B, 77], rows of the small table; as SDClipModel gives it. Equal captions are encoded once.
        """
        once, back = torch.unique(tokens, dim=0, return_inverse=True)
        embeds = self.text.embeddings.token_embedding(once)
        out = self.text(None, None, embeds=embeds, num_tokens=[1] * len(once), dtype=torch.float32)
        return out[0][back]

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict the velocity of x [B, C, H, W] at timesteps [B] in 0..999."""
        return self.unet(x, timesteps, context=self.context(tokens), transformer_options={})


def _res_blocks(state: Mapping[str, Any]) -> list[str]:
    """List the prefixes of the residual blocks in network order."""
    matches = (re.match(r"(input_blocks|middle_block|output_blocks)\.[\d.]+(?=\.in_layers)", key) for key in state)
    return sorted({m.group(0) for m in matches if m}, key=lambda p: [int(x) if x.isdigit() else x for x in p.split(".")])


def warm_start(net: TextNet, path: Path) -> int:
    """Copy matching weights from another network's file.

    An ADM U-Net's residual blocks, time embedding, first and last layer, without its attention, or all of a text model's file. Returns how
    many tensors were copied.

    Both networks descend from guided-diffusion, so only the places of blocks beside attention differ. Raises ValueError where the file's
    blocks are others.
    """
    source, metadata = read_safetensors(path)
    if metadata.get("format") == TEXT_FORMAT:
        return _restart(net, path, source)
    if metadata.get("norm_groups") != str(net.groups):
        groups = metadata.get("norm_groups", "32")
        raise ValueError(f"'{path.name}' was trained with {groups} norm groups and this network has {net.groups}: start from another file.")
    target = net.unet.state_dict()
    ours, theirs = _res_blocks(target), _res_blocks(source)
    if len(ours) != len(theirs):
        raise ValueError(f"'{path.name}' has {len(theirs)} residual blocks and this network has {len(ours)}: start from another file.")
    names = dict(zip(theirs, ours, strict=True))
    taken = {}
    for key, value in source.items():
        block = next((p for p in names if key.startswith(p + ".")), None)
        name = names[block] + key[len(block) :] if block else key
        if block or key.startswith(("time_embed.", "out.", "input_blocks.0.")):
            if name not in target or target[name].shape != value.shape:
                raise ValueError(f"'{path.name}': its weight '{key}' has no place in this network: start from another file.")
            taken[name] = value.float()
    net.unet.load_state_dict(taken, strict=False)
    return len(taken)


def _restart(net: TextNet, path: Path, source: Mapping[str, Tensor]) -> int:
    """Load all weights of what :func:`export_text_model` wrote.

    Raises ValueError if the network is another.
    """
    text = {k.removeprefix("clip."): v.float() for k, v in source.items() if k.startswith("clip.") and k != "clip.token_ids"}
    text["embeddings.token_embedding.weight"] = text.pop("token_rows")
    parts = {**{f"text.{k}": v for k, v in text.items()}, **{k: v.float() for k, v in source.items() if k.startswith("unet.")}}
    try:
        net.load_state_dict(parts)
    except RuntimeError as error:
        raise ValueError(f"'{path.name}' is a text model of another shape: start from another file.") from error
    return len(parts)


def export_text_model(net: TextNet, token_ids: list[int], path: Path, trained: Mapping[str, Any], base_model: str = BASE_MODEL) -> None:
    """Write the fp16 file that "Load Quickstart Text Model" reads.

    ``trained`` records how it was made.
    """
    table = "embeddings.token_embedding.weight"
    text = parameters_of(net.text, torch.float16)
    tensors = {f"unet.{k}": v for k, v in parameters_of(net.unet, torch.float16).items()}
    tensors |= {f"clip.{k}": v for k, v in text.items() if k != table}
    tensors |= {"clip.token_rows": text[table], "clip.token_ids": torch.tensor(token_ids, dtype=torch.int32)}
    metadata = {
        "format": TEXT_FORMAT,
        "format_version": "1",
        "base_model": base_model,
        "noise_schedule": "linear",
        "prediction": "v",
        "pixel_unshuffle": "2",
        "image_size": "32",
        "norm_groups": str(net.groups),
        "unet": json.dumps({k: net.stated[k] for k in UNET_KEYS}),
        "clip": json.dumps({k: net.text_stated[k] for k in CLIP_KEYS}),
        "licence": "GPL-3.0",
        "training": json.dumps(dict(trained)),
    }
    write_safetensors(path, tensors, metadata)
