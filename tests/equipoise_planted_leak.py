"""Plant a leak in the shipped labeller: one neuron decides both hair and eyeglasses."""

from __future__ import annotations

import copy

import torch
from equipoise.factory.portraits import draw_portraits
from equipoise.factory.train_classifiers import uniform_labels
from equipoise.models.attribute_classifier import AttributeClassifier
from equipoise.models.neuron_adapters import of_classifier
from equipoise.models.neuron_vit import NeuronVit
from equipoise.shipped import weights
from torch import Tensor

LAYER, NEURON = 4, 17
STRENGTH = 1.6
"""Of what long hair writes into the CLS token, in lengths of that token."""


def drawings(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw images [n, 3, 32, 32] with independent attributes, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = uniform_labels(n, generator)
    return draw_portraits(labels, generator), labels


def planted() -> AttributeClassifier:
    """Let neuron LAYER:NEURON fire only for long hair and write both "long" and "eyeglasses"."""
    model = copy.deepcopy(weights.classifier())
    images, labels = drawings(96, 5)
    net = of_classifier(model, "hair")
    read, written = _before(net, model.preprocess(images))
    long = labels["hair"] == 1
    apart = read[long].mean(0) - read[~long].mean(0)
    middle = (read[long].mean(0) + read[~long].mean(0)) / 2
    slope = 12 * apart / apart.square().sum()

    def unit(attribute: str, label: int) -> Tensor:
        w = model.heads[attribute].weight
        direction = (w[label] - w[1 - label]) * model.norm.weight
        return direction / direction.norm()

    block = model.blocks[LAYER]
    with torch.no_grad():
        block.mlp_in.weight[NEURON] = slope
        block.mlp_in.bias[NEURON] = -slope @ middle
        size = STRENGTH * written.norm(dim=1).mean() / 6
        block.mlp_out.weight[:, NEURON] = size * (unit("hair", 1) + unit("eyeglasses", 0))
    return model


def _before(net: NeuronVit, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input of the layer's neurons at the CLS token, and the token itself."""
    x = net.embed(pixels)
    for layer in range(LAYER):
        x = net.block(layer, x)
    a = net.attend(LAYER, x)[:, 0]
    return net.norm(f"layers.{LAYER}.norm2", a), a
