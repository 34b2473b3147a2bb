"""The layers of a transformer up to where a neuron path is being extended: their states, and how these move with the path."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.neuron_vit import CLS, NeuronVit, clean_pass
from .path_settings import integration_nodes


class PathPrefix:
    """State of the layers before the one that is searched.

    All their neurons are held: path neurons at a times their clean values, the others at their clean values.

    ``state`` [A, B, N, d]: tokens at the points a of the integral, and at a = 0 for the additive part; ``tangent``: their derivative as all
    path neurons move by 1 (channels of patches: as they are scaled). A is 1 while no neuron is picked. ``total`` [B]: sum of the clean
    values of picked neurons (channels: 1, since tangents hold the values).
    """

    def __init__(self, net: NeuronVit, x: Tensor, rule: str) -> None:
        at, weight = integration_nodes(rule)
        has_zero = bool((at == 0).any())
        self.net, self.layer = net, 0
        self.points = (at if has_zero else torch.cat([at, at.new_zeros(1)])).to(x)
        self.weights = (weight if has_zero else torch.cat([weight, weight.new_zeros(1)])).to(x)
        self.zero = int((self.points == 0).nonzero()[0])
        self.clean, self.clean_logits = clean_pass(net, x)
        self.state, self.tangent = x[None], torch.zeros_like(x)[None]
        self.total = x.new_zeros(len(x)) if net.rows == CLS else x.new_ones(len(x))
        self.picked: list[Tensor] = []

    @property
    def values(self) -> Tensor:
        """Clean values of the layer's neurons, [B, R, D]."""
        return self.clean[self.layer]

    def clean_layer(self) -> tuple[Tensor, Tensor]:
        """Return state and tangent after the layer, with its neurons at clean values.

        [A, B, N, d]; of the last layer, what the head reads.
        """
        net, shape = self.net, (*self.state.shape[:2], -1, self.state.shape[-1])
        rows = net.tokens_read(self.layer)
        a, ta, u, tu = net.attend_and_hidden_jvp(self.layer, self.state.flatten(0, 1), self.tangent.flatten(0, 1), rows)
        u[:, net.neuron_tokens] = self.values.repeat(shape[0], 1, 1)
        tu[:, net.neuron_tokens] = 0
        x = a + net.linear(f"layers.{self.layer}.fc2", u)
        t = ta + tu @ net.written_by(self.layer).T
        return x.view(shape), t.view(shape)

    def written(self, chosen: Tensor) -> Tensor:
        """Return what the chosen neurons [B, K] write together: [B, R, d].

        At their clean values.
        """
        values = self.values.gather(2, chosen[:, None].expand(-1, self.values.shape[1], -1))
        return values @ self.net.written_by(self.layer).T[chosen]

    def direction(self, chosen: Tensor) -> Tensor:
        """Return how tokens move as the chosen neurons move by 1: [B, R, d].

        Channels: as they are scaled.
        """
        if self.net.rows == CLS:
            return self.net.written_by(self.layer).T[chosen].sum(1, keepdim=True)
        return self.written(chosen)

    def with_neurons(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Scale the chosen neurons by the points: [A, B, N, d].

        States x [A or 1, B, N, d].
        """
        x = x.expand(len(self.points), *x.shape[1:]).clone()
        x[:, :, self.net.neuron_tokens] += (self.points - 1).view(-1, 1, 1, 1) * self.written(chosen)
        return x

    def extend(self, x: Tensor, t: Tensor, chosen: Tensor) -> None:
        """Extend the prefix by one layer with the chosen neurons [B, K].

        x and t are the layer's :meth:`clean_layer`.
        """
        self.state = self.with_neurons(x, chosen)
        t = t.expand(len(self.points), *t.shape[1:]).clone()
        t[:, :, self.net.neuron_tokens] += self.direction(chosen)
        self.tangent = t
        if self.net.rows == CLS:
            self.total = self.total + self.values[:, 0].gather(1, chosen).sum(1)
        self.picked.append(chosen)
        self.layer += 1

    def activation(self) -> Tensor:
        """Clean values of the picked neurons (channels: their mean over patches), [B, L, K]."""
        pairs = zip(self.clean, self.picked, strict=False)
        return torch.stack([values.mean(1).gather(1, chosen) for values, chosen in pairs], 1)
