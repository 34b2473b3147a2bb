"""Neurons as they are typed: "0:17, 3:5" is neuron 17 of layer 0 and neuron 5 of layer 3, both counted from 0."""

from __future__ import annotations

import re

import torch
from torch import Tensor

PAIR = re.compile(r"(\d+)\s*:\s*(\d+)")


def pairs(neurons: Tensor) -> str:
    """Write neurons [L, K] in words; -1: none."""
    return ", ".join(f"{layer}:{int(j)}" for layer, row in enumerate(neurons) for j in row if j >= 0)


def listed(text: str, depth: int, width: int) -> list[tuple[int, int]]:
    """Read a list of neurons as (layer, neuron) pairs.

    In order, each once.

    Raises ValueError for what is no such list, and for a layer or a neuron that there is not.
    """
    neurons = []
    for part in (p.strip() for p in re.split(r"[,;\n]", text)):
        if not part:
            continue
        match = PAIR.fullmatch(part)
        if match is None:
            raise ValueError(f"neurons are written layer:neuron with commas between them, as in 0:17, 3:5, and '{part[:40]}' is not.")
        layer, neuron = int(match[1]), int(match[2])
        if layer >= depth or neuron >= width:
            raise ValueError(
                f"this model has the layers 0 to {depth - 1} of neurons 0 to {width - 1}, and {layer}:{neuron} is none of them."
            )
        neurons.append((layer, neuron))
    return list(dict.fromkeys(neurons))


def named_neurons(text: str, depth: int, width: int) -> Tensor:
    """Read a list of neurons as int64 [L, K].

    -1 where a layer has fewer. Errors as of :func:`listed`, and for an empty list.
    """
    neurons = listed(text, depth, width)
    if not neurons:
        raise ValueError("no neurons are named: connect a neuron path, or write some as layer:neuron.")
    rows = [[j for layer, j in neurons if layer == i] for i in range(depth)]
    most = max(map(len, rows))
    return torch.tensor([row + [-1] * (most - len(row)) for row in rows])
