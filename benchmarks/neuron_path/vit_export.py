"""Export one attribute of our vision transformer as a ``transformers`` image classifier."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.attribute_classifier import TransformerBlock, VisionTransformer
from ...models.transformers_classifier import ATTRIBUTE_KEY

TOLERANCE = 1e-4


def export_vit(model: VisionTransformer, attribute: str, folder: str | os.PathLike[str]) -> Path:
    """Write config.json, model.safetensors (float32) and preprocessor_config.json to a new ``folder``.

    ``transformers.ViTForImageClassification.from_pretrained(folder)`` then gives the logits of that attribute. The files are written under
    a temporary name; the folder is renamed after a check that both networks agree, so no half export exists. Returns the folder.

    Raises ValueError if the model lacks the attribute, FileExistsError if the folder exists, RuntimeError if the network that the installed
    transformers builds does not agree.
    """
    folder = Path(folder)
    if attribute not in model.attributes:
        raise ValueError(f"this classifier has no attribute '{attribute}'; it has: {', '.join(model.attributes)}.")
    if folder.exists():
        raise FileExistsError(f"'{folder.name}' exists already. Choose another folder, or remove it first.")
    exported = _build(model, attribute)
    _check(model, attribute, exported)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        exported.save_pretrained(partial)
        (partial / "preprocessor_config.json").write_text(json.dumps(_preprocessor(model), indent=2), encoding="utf-8")
        os.chmod(partial, 0o755)  # mkdtemp makes it private
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _build(model: VisionTransformer, attribute: str) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    classes, ours = model.attributes[attribute], model.config
    config = ViTConfig(
        hidden_size=ours["dim"],
        num_hidden_layers=ours["depth"],
        num_attention_heads=ours["num_heads"],
        intermediate_size=ours["mlp"],
        image_size=model.image_size,
        patch_size=ours["patch"],
        num_channels=3,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        qkv_bias=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(classes)),
        label2id={c: i for i, c in enumerate(classes)},
    )
    setattr(config, ATTRIBUTE_KEY, attribute)
    theirs = ViTForImageClassification(config).float().eval()
    embeddings = theirs.vit.embeddings
    with torch.no_grad():
        embeddings.cls_token.copy_(model.cls_token)
        embeddings.position_embeddings.copy_(model.pos_embed)
        _copy(model.patch_embed, embeddings.patch_embeddings.projection)
        layers = _first(theirs.vit, "layers", "encoder.layer")
        for block, layer in zip(model.blocks, layers, strict=True):
            _copy_block(block, layer)
        _copy(model.norm, theirs.vit.layernorm)
        _copy(model.heads[attribute], theirs.classifier)
    return theirs


def _copy_block(block: TransformerBlock, layer: nn.Module) -> None:
    """Copy a block's modules by their role, because transformers 4 and 5 name them differently."""
    for ours, names in (
        (block.norm1, ("layernorm_before",)),
        (block.norm2, ("layernorm_after",)),
        (block.query, ("attention.q_proj", "attention.attention.query")),
        (block.key, ("attention.k_proj", "attention.attention.key")),
        (block.value, ("attention.v_proj", "attention.attention.value")),
        (block.attention_out, ("attention.o_proj", "attention.output.dense")),
        (block.mlp_in, ("mlp.fc1", "intermediate.dense")),
        (block.mlp_out, ("mlp.fc2", "output.dense")),
    ):
        _copy(ours, _first(layer, *names))


def _first(module: nn.Module, *names: str) -> Any:
    for name in names:
        try:
            return module.get_submodule(name)
        except AttributeError:
            continue
    raise RuntimeError(f"transformers 4 and 5 name a part of a ViT {' or '.join(names)}, the installed version does not: use 4.x or 5.x.")


def _copy(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.weight.copy_(ours.weight)
    theirs.bias.copy_(ours.bias)


def _check(model: VisionTransformer, attribute: str, exported: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    size = model.image_size
    pixels: Tensor = torch.rand(4, 3, size, size, generator=generator) * 2 - 1
    device = model.cls_token.device
    with torch.no_grad():
        expected = model(pixels.to(device))[attribute].float().cpu()
        met = exported(pixel_values=pixels).logits
    error = (expected - met).abs().max().item()
    if not error <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise RuntimeError(f"the exported network differs from ours by {error:.2g}: nothing was written, try another transformers.")


def _preprocessor(model: VisionTransformer) -> dict[str, Any]:
    """Describe :meth:`AttributeClassifier.preprocess` in transformers' words (resample 2 is bilinear)."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": model.image_size, "width": model.image_size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
