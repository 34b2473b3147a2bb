"""Vision transformers of several families as :class:`.neuron_vit.NeuronVit`: ours, those of ``transformers``, and CLIP vision models.

Weights are recognised by their names. The result is compared with the model itself, and a network that computes anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .attribute_classifier import AttributeClassifier, VisionTransformer
from .neuron_vit import ACTIVATIONS, CLS, PATCHES, NeuronVit
from .transformers_classifier import TransformersClassifier
from .zero_shot_head import ZeroShotHead

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|blocks)\.(\d+)\.(.+)$")
IN_LAYER = {
    "norm1": ("layernorm_before", "layer_norm1", "norm1"),
    "query": ("attention.q_proj", "attention.attention.query", "self_attn.q_proj", "query"),
    "key": ("attention.k_proj", "attention.attention.key", "self_attn.k_proj", "key"),
    "value": ("attention.v_proj", "attention.attention.value", "self_attn.v_proj", "value"),
    "out": ("attention.o_proj", "attention.output.dense", "self_attn.out_proj", "attention_out"),
    "norm2": ("layernorm_after", "layer_norm2", "norm2"),
    "fc1": ("mlp.fc1", "intermediate.dense", "mlp_in"),
    "fc2": ("mlp.fc2", "output.dense", "mlp_out"),
}
"""Canonical name -> names in transformers 5, transformers 4, CLIP (also the host's), ours."""
OUTSIDE = {
    "patch": ("vit.embeddings.patch_embeddings.projection", "vision_model.embeddings.patch_embedding", "patch_embed"),
    "cls": ("vit.embeddings.cls_token", "vision_model.embeddings.class_embedding", "cls_token"),
    "position": ("vit.embeddings.position_embeddings", "vision_model.embeddings.position_embedding", "pos_embed"),
    "pre_norm": ("vision_model.pre_layrnorm",),
    "norm": ("vit.layernorm", "vision_model.post_layernorm", "norm"),
    "projection": ("visual_projection",),
    "head": ("classifier",),
}
IGNORED = ("embeddings.position_ids", "logit_scale", "text_projection")
NEEDED = ("cls", "position", "patch.weight", "norm.weight")
AGREE = 1e-3
"""Largest difference of logits, relative to their spread, between the model and its NeuronVit."""


def of_classifier(model: AttributeClassifier, attribute: str = "") -> NeuronVit:
    """Convert a classifier's head for one attribute to a NeuronVit.

    ``attribute`` may be empty if there is only one.

    Raises ValueError, with the reason, for a network that is no vision transformer.
    """
    attribute = attribute or next(iter(model.attributes))
    if attribute not in model.attributes:
        raise ValueError(f"this classifier reads {', '.join(model.attributes)}, not '{attribute}': choose one of them.")
    if isinstance(model, VisionTransformer):
        return _of_ours(model, attribute)
    if isinstance(model, TransformersClassifier):
        return _of_transformers(model, attribute)
    raise ValueError(
        f"neuron paths need a vision transformer, and this classifier is a '{model.architecture}': choose another classifier."
    )


def _of_ours(model: VisionTransformer, attribute: str) -> NeuronVit:
    state, ours = model.state_dict(), model.config
    heads = {k: v for k, v in state.items() if not k.startswith("heads.")}
    weights = canonical(heads) | {f"head.{k}": _own(state[f"heads.{attribute}.{k}"]) for k in ("weight", "bias")}
    shape = {"depth": ours["depth"], "heads": ours["num_heads"], "activation": "gelu", "eps": 1e-6, "patch": ours["patch"]}
    facts = {"labels": model.attributes[attribute], "preprocess": model.preprocess, "name": attribute, "family": "equipoise"}
    net = NeuronVit(weights, **shape, **facts)
    return check_agreement(net, lambda pixels: model(pixels)[attribute])


def _of_transformers(model: TransformersClassifier, attribute: str) -> NeuronVit:
    network = model.network
    vision = getattr(network.config, "vision_config", network.config)
    kind = network.config.model_type
    if kind not in ("vit", "clip"):
        raise ValueError(
            f"neuron paths support the transformers models 'vit' and 'clip', and this one is a '{kind}': choose another classifier."
        )
    weights = canonical(network.state_dict())
    if kind == "clip":
        # Its classifier reads the mean over patches of the last layer, without the norm that the CLS token gets.
        weights = {k: v for k, v in weights.items() if not k.startswith("norm.")}
    net = NeuronVit(
        weights,
        vision.num_hidden_layers,
        vision.num_attention_heads,
        supported_activation(vision.hidden_act),
        float(vision.layer_norm_eps),
        int(vision.patch_size),
        model.attributes[attribute],
        model.preprocess,
        rows=PATCHES if kind == "clip" else CLS,
        name=attribute,
        family=f"transformers {kind}",
    )
    return check_agreement(net, lambda pixels: model(pixels)[attribute])


def of_clip_vision(
    network: nn.Module, config: Mapping[str, Any], head: ZeroShotHead, preprocess: Callable[[Tensor], Tensor], eps: float = 1e-5
) -> NeuronVit:
    """Convert a CLIP vision model with a zero-shot head to a NeuronVit.

    ``network``: the host's model, or one of ``transformers``. ``config``: as in its config.json. Raises ValueError for one without a CLS
    token and a projection (SigLIP, DINO), and for a head of another width.
    """
    state = dict(network.state_dict())
    kind = str(config.get("model_type", "clip_vision_model"))
    if not any(k.endswith("class_embedding") for k in state):
        raise ValueError(
            f"this vision model ('{kind}') has no CLS token, and neuron paths need one: load a CLIP vision model (ViT-L, H)."
        )
    projection = state.get("visual_projection.weight")
    if projection is None:
        raise ValueError(
            "this vision model has no projection to the space of texts, so no text can label images: load a CLIP vision model."
        )
    if projection.shape[0] != head.width:
        raise ValueError(
            f"the head '{head.attribute}' has text embeddings of {head.width} entries and this vision model projects to "
            f"{projection.shape[0]}: encode the prompts with the text model that belongs to it (ViT-L: 768, ViT-H: 1024, bigG: 1280)."
        )
    weights = canonical({k: v for k, v in state.items() if not k.startswith("text_model.")})
    embeddings = torch.nn.functional.normalize(head.embeddings.float(), dim=-1).clone()
    net = NeuronVit(
        weights | {"head.weight": embeddings},
        int(config["num_hidden_layers"]),
        int(config["num_attention_heads"]),
        supported_activation(config["hidden_act"]),
        eps,
        int(config["patch_size"]),
        head.labels,
        preprocess,
        cosine=True,
        scale=head.scale,
        name=head.attribute,
        family=kind,
    )
    return net


def canonical(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Give a network's weights our names, on the CPU.

    Raises ValueError, with the first name, for weights that a plain vision transformer does not have, and for missing ones.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = _canonical_name(name)
        if ours is None:
            raise ValueError(
                f"this network is not a plain vision transformer (it has '{name}'), so its paths would be wrong: choose another one."
            )
        if ours:
            shape = {"cls": (-1,), "position": tuple(tensor.shape[-2:])}.get(ours, tuple(tensor.shape))
            weights[ours] = _own(tensor.reshape(shape), dtype)
    missing = [n for n in NEEDED if n not in weights]
    if missing:
        raise ValueError(f"this network lacks '{missing[0]}', so it is not a vision transformer with a CLS token: choose a ViT or CLIP.")
    return weights


def _canonical_name(name: str) -> str | None:
    """Translate a tensor's name.

    "" for a tensor that is not needed, None for an unknown one.
    """
    if name.endswith(IGNORED) or name.split(".")[0] in IGNORED:
        return ""
    inside = LAYER.search(name)
    table, rest, prefix = (OUTSIDE, name, "") if inside is None else (IN_LAYER, inside.group(2), f"layers.{inside.group(1)}.")
    for ours, theirs in table.items():
        for known in theirs:
            if rest == known or rest in (f"{known}.weight", f"{known}.bias"):
                bare = ours in ("cls", "position")
                return ours if bare else f"{prefix}{ours}.{rest.rpartition('.')[2]}"
    return None


def supported_activation(name: object) -> str:
    """Return the name of an activation that is supported.

    Raises ValueError for another one.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"neuron paths support the activations {', '.join(ACTIVATIONS)}, and this network has '{name}': choose another model."
        )
    return str(name)


@torch.no_grad()
def check_agreement(net: NeuronVit, logits: Callable[[Tensor], Tensor]) -> NeuronVit:
    """Return the network if its logits equal those of the model.

    They are compared on images of noise. Raises ValueError if they differ.
    """
    size = net.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    theirs, ours = logits(pixels).float(), net.run(0, net.embed(pixels))
    spread = float(theirs.std()) or 1.0
    error = float((theirs - ours).abs().max()) / spread
    if not error < AGREE:
        raise ValueError(
            f"this network computes other results than a plain vision transformer with its weights (logits differ by {error:.2g} of "
            "their spread), so its paths would be wrong: choose another model."
        )
    return net


def _own(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights, or a copy if they must not be used directly.

    A copy is made if gradients cannot be taken through them (inference mode), or they are on another device or of another dtype.
    """
    with torch.inference_mode(False):
        copied = tensor.is_inference() or tensor.device.type != "cpu" or tensor.dtype != dtype
        return tensor.detach().to("cpu", dtype, copy=True).contiguous() if copied else tensor.detach()
