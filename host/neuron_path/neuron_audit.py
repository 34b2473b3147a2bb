"""What an audit reads: one network with several heads, its trunk in memory once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ...methods.neuron_path.class_path import class_paths, mode_path
from ...models.neuron_path import NeuronPathFile, check_network
from ...models.neuron_vit import NeuronVit
from ...models.zero_shot_head import ZeroShotHead
from ..core.types import ClipVision
from ..labels.classifier import HostClassifier
from .models import vision_of


def audited_nets(
    classifier: HostClassifier | None, clip_vision: ClipVision | None, heads: Sequence[ZeroShotHead | None], attributes: Sequence[str]
) -> dict[str, NeuronVit]:
    """Return a network with its head for every attribute.

    Attributes of a classifier (none named: all), or zero-shot heads of a CLIP_VISION.

    Raises ValueError for fewer than two of them, one that is not there, and as :func:`.vision_neurons.vision_of`.
    """
    connected = [h for h in heads if h is not None]
    if classifier is None:
        first = vision_of(None, clip_vision, connected[0] if connected else None)
        names = [h.attribute for h in connected]
        if len(set(names)) < len(names) or len(names) < 2:
            raise ValueError(
                f"an audit compares two or more zero-shot heads of different attributes; met {', '.join(names)}: connect others."
            )
        if any(h.width != connected[0].width for h in connected):
            raise ValueError("these zero-shot heads have embeddings of different widths: encode all prompts with one text model.")
        nets = {}
        for h in connected:
            # Gradients are taken through the head, which they could not through what was made in inference mode.
            with torch.inference_mode(False):
                weight = F.normalize(h.embeddings.float().clone(), dim=-1).to(first.device)
            nets[h.attribute] = replace(
                first, weights={**first.weights, "head.weight": weight}, labels=h.labels, scale=h.scale, name=h.attribute
            )
        return nets
    names = list(attributes) or list(classifier.attributes)
    if len(set(names)) < 2:
        raise ValueError(f"an audit compares two or more attributes, and '{classifier.name}' was asked for {', '.join(names)}: name more.")
    nets, trunk = {}, {}
    for name in dict.fromkeys(names):
        net = vision_of(classifier, clip_vision, None, name)
        trunk = trunk or {k: v for k, v in net.weights.items() if not k.startswith("head.")}
        nets[name] = replace(net, weights={**net.weights, **trunk})
    return nets


def class_neurons(path: NeuronPathFile, net: NeuronVit, class_name: str = "") -> NeuronPathFile:
    """Return the paths of a file's classes, a row for each.

    As they are if they are shared, else the most frequent neurons of each class's images. ``class_name``: of one class alone. Raises
    ValueError for another network, and for a class without a path.
    """
    check_network(path, net)
    chosen = path.of_class(class_name.strip()) if class_name.strip() else path
    if chosen.shared:
        return chosen.rows([chosen.target.index(c) for c in chosen.classes])
    return class_paths(chosen, {c: mode_path(chosen.of_class(c).path) for c in chosen.classes})
