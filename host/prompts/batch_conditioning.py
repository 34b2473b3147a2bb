"""One CONDITIONING with a row per image, for models that the host samples with a different prompt for each image of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.types import Clip, Conditioning, ConditioningEntry

REPEATED, MASKED, EQUAL = "repeated", "masked", "equal"
"""What is done where prompts have different numbers of tokens: tokens are repeated, padded under a mask, or the prompts are refused."""
TEXT_MODELS = {
    "SD1ClipModel": REPEATED,
    "SD2ClipModel": REPEATED,
    "SDXLClipModel": REPEATED,
    "SD3ClipModel": EQUAL,
    "FluxClipModel": EQUAL,
    "WanTEModel": EQUAL,
    "QwenImageTEModel": MASKED,
}
"""The host's classes of text encoders whose models were tried: row i of a batch equals the image alone with prompt i."""
_USE_LISTS = "Connect the output 'prompts' to CLIP Text Encode and 'latents' to the sampler instead."


def batch_conditioning(clip: Clip, prompts: Sequence[str]) -> Conditioning:
    """Encode a prompt per image into one CONDITIONING whose tensors have a row per image.

    Every distinct prompt is encoded once. A U-Net attends to tokens without an order of its own, so repeating all tokens of a prompt
    changes nothing; the host does the same. Raises ValueError for a text encoder whose model was not tried, and for prompts of different
    lengths where the model cannot take them in one batch.
    """
    rule = _rule(clip)
    distinct = list(dict.fromkeys(prompts))
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt)) for prompt in distinct]
    rows = [distinct.index(prompt) for prompt in prompts]
    if len({len(entries) for entries in encoded}) > 1:
        raise ValueError(f"the prompts of this batch have different schedules. {_USE_LISTS}")
    return [_joined([entries[i] for entries in encoded], rows, rule) for i in range(len(encoded[0]))]


def _rule(clip: Clip) -> str:
    """Return what is done about different numbers of tokens."""
    # The host derives a class from most text encoders to set their dtype; its name ends in an underscore.
    name = type(clip.cond_stage_model).__name__.rstrip("_")
    if name not in TEXT_MODELS:
        raise ValueError(f"a batch with a prompt per image was not tried with the text encoder {name}. {_USE_LISTS}")
    return TEXT_MODELS[name]


def _joined(entries: Sequence[tuple[Tensor, ConditioningEntry]], rows: Sequence[int], rule: str) -> list[Any]:
    """Join one entry of every distinct prompt into an entry with a row per image."""
    texts = [entry[0] for entry in entries]
    lengths = [text.shape[1] for text in texts]
    extra: ConditioningEntry = {}
    masks = [entry[1].get("attention_mask") for entry in entries]
    if len(set(lengths)) > 1 and rule == EQUAL:
        raise ValueError(
            f"the prompts have {min(lengths)} to {max(lengths)} tokens, and this model takes prompts of one length in a batch. {_USE_LISTS}"
        )
    if len(set(lengths)) > 1 and rule == REPEATED:
        longest = math.lcm(*lengths)
        texts = [text.repeat(1, longest // text.shape[1], 1) for text in texts]
    if rule == MASKED and (len(set(lengths)) > 1 or any(mask is not None for mask in masks)):
        longest = max(lengths)
        masks = [torch.ones(1, n, dtype=torch.long) if m is None else m.to("cpu") for m, n in zip(masks, lengths, strict=True)]
        extra["attention_mask"] = torch.cat([_padded(m, longest, 1) for m in masks])[list(rows)]
        texts = [_padded(text, longest, 1) for text in texts]
    for key in entries[0][1].keys() - extra.keys():
        values = [entry[1][key] for entry in entries]
        extra[key] = torch.cat(values)[list(rows)] if all(isinstance(v, Tensor) for v in values) else values[0]
    return [torch.cat(texts)[list(rows)], extra]


def _padded(tensor: Tensor, length: int, dim: int) -> Tensor:
    """Pad a tensor with zeros behind, up to a length."""
    shape = [*tensor.shape[:dim], length - tensor.shape[dim], *tensor.shape[dim + 1 :]]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)
