"""The vision transformers that users have connected, as copies in which neurons can be read, held and differentiated.

The copy is made outside of the host's inference mode and run where the host computes; the classifier or CLIP_VISION itself is only read.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import comfy.clip_model
import comfy.clip_vision
import comfy.model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from ...methods.core.written_names import bare_name, plain_signs, split_names
from ...models.attribute_classifier import AttributeClassifier
from ...models.neuron_adapters import of_classifier, of_clip_vision
from ...models.neuron_vit import NeuronVit, check_labels
from ...models.zero_shot_head import ZeroShotHead
from ..core.types import ClipVision
from ..labels.classifier import HostClassifier
from ..labels.clip_projection import is_blank

AGREE, AGREE_HALF = 1e-3, 3e-2
"""Largest distance of embeddings of length 1 between the host's CLIP_VISION and the copy, the host computing in 32 or 16 bits."""
BATCH = 32
PREDICTED = ""
"""As target: the class that the model itself reads in each image."""


def vision_of(
    classifier: HostClassifier | None = None, clip_vision: ClipVision | None = None, head: ZeroShotHead | None = None, attribute: str = ""
) -> NeuronVit:
    """Return the transformer of a classifier or a CLIP_VISION, on the host's device.

    A classifier's head for one attribute (empty: its only one), or a CLIP_VISION with a zero-shot head.

    Raises ValueError where neither or both are connected, where the model is no vision transformer that neuron paths can
    follow, and where it was edited: paths are those of a model as it is.
    """
    if classifier is not None and clip_vision is not None:
        raise ValueError("a classifier and a CLIP vision model are connected, and paths follow one model: disconnect one of them.")
    if classifier is not None:
        net = _of_classifier(classifier, attribute)
    elif clip_vision is not None:
        if head is None:
            raise ValueError("a CLIP vision model alone knows no classes: connect a zero-shot head, from Zero-Shot Attribute Head.")
        if attribute.strip() and attribute.strip() != head.attribute:
            raise ValueError(f"the zero-shot head reads '{head.attribute}', not '{attribute.strip()}': leave the attribute empty.")
        net = _of_clip_vision(clip_vision, head)
    else:
        what = "only a zero-shot head is connected" if head is not None else "no model is connected"
        raise ValueError(f"{what}: connect a classifier, or a CLIP vision model with a zero-shot head.")
    device = comfy.model_management.get_torch_device()
    size = sum(w.numel() * w.element_size() for w in net.weights.values())
    comfy.model_management.free_memory(size, device)
    with torch.inference_mode(False):  # gradients cannot be taken through what is made within the host's inference mode
        return replace(net, weights={k: (w.clone() if w.is_inference() else w).to(device) for k, w in net.weights.items()})


def model_name(net: NeuronVit, classifier: HostClassifier | None = None) -> str:
    """Return the name of the model in reports."""
    return classifier.name if classifier is not None else f"CLIP vision, {net.depth} x {net.width}"


def pixels_of(net: NeuronVit, images: Tensor) -> Tensor:
    """Preprocess an IMAGE for the model: float32 [B, 3, S, S] on the CPU.

    IMAGE [B, H, W, 3 or 4] in 0..1. Raises ValueError if it holds no images, or is no IMAGE.
    """
    if images.ndim != 4 or images.shape[-1] not in (3, 4):
        raise ValueError(f"neuron paths are found in images of shape [B, H, W, 3 or 4]; met {list(images.shape)}: connect decoded images.")
    if not len(images):
        raise ValueError("there are no images to find a path of: connect at least one.")
    parts = [net.preprocess(part.cpu().movedim(-1, 1)) for part in images[..., :3].split(BATCH)]
    return torch.cat(parts).float().cpu()


def logits_of(net: NeuronVit, pixels: Tensor) -> Tensor:
    """Compute logits of preprocessed pixels, float32 [B, K] on the CPU.

    The host can interrupt between chunks.
    """
    parts = []
    for part in pixels.split(BATCH):
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.no_grad():
            parts.append(net.run(0, net.embed(part.to(net.device))).float().cpu())
    return torch.cat(parts)


def targets_of(net: NeuronVit, pixels: Tensor, wanted: str = PREDICTED) -> Tensor:
    """Return the class whose path is searched in each image, int64 [B].

    As positions in the head.

    ``wanted``: empty = what the model reads in it; one class for all; or as many as there are images, separated by commas (a name that
    holds one in double quotes). Raises ValueError for a class that the head has not, and for another number.
    """
    named = [bare_name(part) for part in split_names(plain_signs(wanted), ",")]
    if not named:
        return logits_of(net, pixels).argmax(1)
    if len(named) not in (1, len(pixels)):
        raise ValueError(f"{len(named)} classes are named for {len(pixels)} image(s): name one for all, or one for each.")
    classes = torch.tensor(check_labels(net, named))
    return classes.expand(len(pixels)).clone() if len(classes) == 1 else classes


def _of_classifier(classifier: HostClassifier, attribute: str) -> NeuronVit:
    if getattr(classifier, "edits", None):
        raise ValueError(f"neurons of '{classifier.name}' were edited, and paths are those of a model as it is: connect the original.")
    attribute = attribute.strip()
    if not attribute and len(classifier.attributes) > 1:
        raise ValueError(f"'{classifier.name}' reads {', '.join(classifier.attributes)}: name the attribute whose paths are to be found.")
    return of_classifier(_on_cpu(classifier.model), attribute)


def _on_cpu(model: AttributeClassifier) -> AttributeClassifier:
    """Return the model on the CPU.

    A copy, if the host has it on another device at present.
    """
    if next(model.parameters()).device.type == "cpu":
        return model
    return copy.deepcopy(model).cpu()


def _of_clip_vision(vision: ClipVision, head: ZeroShotHead) -> NeuronVit:
    network = vision.model
    if not hasattr(network, "vision_model"):
        raise ValueError(
            f"this image encoder ('{type(network).__name__}') is no CLIP, and no text can label what it sees: load CLIP ViT-L/14, ViT-H/14 "
            "or ViT-bigG/14 with Load CLIP Vision."
        )
    if any(name.endswith("mlp.activation") for name in vision.patcher.object_patches):
        raise ValueError("neurons of this CLIP vision model were edited, and paths are those of a model as it is: connect the original.")
    comfy.model_management.load_model_gpu(vision.patcher)  # takes away what an edited clone has put into the weights that they share
    projection = getattr(getattr(network, "visual_projection", None), "weight", None)
    if isinstance(projection, Tensor) and is_blank(projection):
        raise ValueError(
            "the projection to the space of texts is missing in this CLIP vision model's file, so no text can label what it sees: take a "
            "file with the whole CLIP model."
        )
    layers = network.vision_model.encoder.layers
    known = {id(f): name for name, f in comfy.clip_model.ACTIVATIONS.items()}
    config = {
        "model_type": "clip_vision_model",
        "num_hidden_layers": len(layers),
        "num_attention_heads": layers[0].self_attn.heads,
        "hidden_act": known.get(id(layers[0].mlp.activation), type(layers[0].mlp.activation).__name__),
        "patch_size": network.vision_model.embeddings.patch_embedding.weight.shape[-1],
    }
    size, mean, std = vision.image_size, vision.image_mean, vision.image_std

    def preprocess(images: Tensor) -> Tensor:
        return comfy.clip_vision.clip_preprocess(images.movedim(1, -1), size=size, mean=mean, std=std).float()

    net = of_clip_vision(network, config, head, preprocess, eps=float(network.vision_model.post_layernorm.eps))
    return _agreeing(net, vision)


def _agreeing(net: NeuronVit, vision: ClipVision) -> NeuronVit:
    """Return the network if it sees what the host's model sees.

    Compared on an image of noise. Raises ValueError if the two differ.
    """
    images = torch.rand(1, net.image_size, net.image_size, 3, generator=torch.Generator().manual_seed(0))
    theirs = F.normalize(vision.encode_image(images)["image_embeds"].float().cpu(), dim=-1)
    width = theirs.shape[-1]
    bare = replace(net, weights={**net.weights, "head.weight": torch.eye(width)}, scale=1.0)
    ours = logits_of(bare, pixels_of(bare, images))
    error = float((theirs - ours).norm())
    if not error < (AGREE if vision.dtype == torch.float32 else AGREE_HALF):
        raise ValueError(
            "this CLIP vision model does not compute what a plain vision transformer of its weights does (embeddings differ by "
            f"{error:.2g}), so its paths would be wrong: take away what changes it, or load another."
        )
    return net
