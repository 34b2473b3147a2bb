"""A pre-norm vision transformer as plain weights and functions, in which the neurons of every layer can be read, held and differentiated.

Neuron (l, j) is entry j of the hidden vector of layer l's perceptron, after its activation and before its second linear map, at the CLS
token; in a classifier whose head reads the mean over patches, it is channel j at all patch tokens. Wang et al., "Discovering Influential
Neuron Path in Vision Transformers", ICLR 2025.

Weights are a model's own or copies of them, and are never written to: the model stays as it was, and gradients can be taken also where the
host is in inference mode. :mod:`.neuron_adapters` makes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .digests import network_digest

CLS, PATCHES = "cls", "patches"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
Edit = Callable[[int, Tensor], Tensor]
"""edit(layer, hidden [B, R, D] of the rows where neurons live) -> the hidden vectors to go on with."""


@dataclass(frozen=True)
class NeuronVit:
    """A vision transformer as weights and settings.

    Canonical names of the weights: ``patch``, ``cls``, ``position``, ``pre_norm``, ``norm``, ``projection``, ``head``, and in ``layers.N``:
    ``norm1``, ``query``, ``key``, ``value``, ``out``, ``norm2``, ``fc1``, ``fc2``.
    """

    weights: Mapping[str, Tensor]
    """Weights by canonical name."""
    depth: int
    """Number of layers."""
    heads: int
    """Attention heads of a layer."""
    activation: str
    """Name of the activation, a key of ``ACTIVATIONS``."""
    eps: float
    """Epsilon of the normalisations."""
    patch: int
    """Side of a patch, in pixels."""
    labels: tuple[str, ...]
    """Classes of the head, in order."""
    preprocess: Callable[[Tensor], Tensor]
    """Images [B, 3, H, W] in 0..1 -> the network's input."""
    rows: str = CLS
    """Where neurons live and what the head reads: "cls", or "patches" (their mean)."""
    cosine: bool = False
    """Whether the head is the cosine with text embeddings, times ``scale``."""
    scale: float = 1.0
    """Factor of a cosine head's logits."""
    name: str = ""
    """Name of the head in messages."""
    family: str = ""
    """Name of the model's family in messages."""

    # -- facts -----------------------------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Entries of a token."""
        return self.weights["cls"].numel()

    @property
    def neurons(self) -> int:
        """Neurons of a layer."""
        return self.weights["layers.0.fc1.weight"].shape[0]

    @property
    def tokens(self) -> int:
        """Tokens of an image, the CLS token among them."""
        return self.weights["position"].shape[0]

    @property
    def image_size(self) -> int:
        """Edge of the square images that it reads, in pixels."""
        return self.patch * math.isqrt(self.tokens - 1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.weights["cls"].dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.weights["cls"].device

    @property
    def neuron_tokens(self) -> slice:
        """Tokens where neurons live."""
        return slice(0, 1) if self.rows == CLS else slice(1, None)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> NeuronVit:
        """Return the network in another dtype or on another device.

        float64 is for the CPU alone.
        """
        return replace(self, weights={k: v.to(device=device, dtype=dtype) for k, v in self.weights.items()})

    def fingerprint(self) -> str:
        """Hash the transformer without its head.

        A path holds for the network that it was found in.
        """
        facts = json.dumps([self.depth, self.heads, self.activation, self.rows])
        return network_digest(facts, {name: w for name, w in self.weights.items() if name.split(".")[0] != "head"})

    # -- parts -----------------------------------------------------------------------------------------------------------------------

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Apply one linear map."""
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Apply one layer normalisation."""
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), self.eps)

    def written_by(self, layer: int) -> Tensor:
        """Return what each neuron writes into its token: [d, D].

        The weights of the second linear map.
        """
        return self.weights[f"layers.{layer}.fc2.weight"]

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed preprocessed pixels as tokens before the first layer.

        [B, 3, H, W] -> [B, N, d].
        """
        x = F.conv2d(pixels.to(self.dtype), self.weights["patch.weight"], self.weights.get("patch.bias"), stride=self.patch)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.weights["cls"].expand(len(x), 1, -1), x], dim=1)
        if x.shape[1] != self.tokens:
            raise ValueError(
                f"this model reads {self.tokens - 1} patches, and the images have {x.shape[1] - 1}: preprocess the images first."
            )
        x = x + self.weights["position"]
        return self.norm("pre_norm", x) if "pre_norm.weight" in self.weights else x

    def attend(self, layer: int, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """Apply a layer's attention and residual, for these rows: [B, R, d]."""
        at = f"layers.{layer}"
        h = self.norm(f"{at}.norm1", x)
        q, k, v = (self._split(self.linear(f"{at}.{n}", y)) for n, y in (("query", h[:, rows]), ("key", h), ("value", h)))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x[:, rows] + self.linear(f"{at}.out", mixed)

    def hidden(self, layer: int, attended: Tensor) -> Tensor:
        """Compute the hidden vectors of a layer's perceptron: [B, R, D]."""
        at = f"layers.{layer}"
        return ACTIVATIONS[self.activation](self.linear(f"{at}.fc1", self.norm(f"{at}.norm2", attended)))

    def tokens_read(self, layer: int) -> slice:
        """Return which tokens after a layer are read by anything.

        Of the last layer, those of the head.
        """
        return slice(0, 1) if layer == self.depth - 1 and self.rows == CLS else slice(None)

    def block(self, layer: int, x: Tensor, edit: Edit | None = None) -> Tensor:
        """Apply one layer to tokens [B, N, d].

        Of the last layer, only the tokens that the head reads.
        """
        a = self.attend(layer, x, self.tokens_read(layer))
        u = self.hidden(layer, a)
        if edit is not None:
            new = edit(layer, u[:, self.neuron_tokens])
            u = torch.cat([new, u[:, 1:]], dim=1) if self.rows == CLS else torch.cat([u[:, :1], new], dim=1)
        return a + self.linear(f"layers.{layer}.fc2", u)

    def run(self, start: int, x: Tensor, edit: Edit | None = None) -> Tensor:
        """Compute logits [B, K] from the tokens before layer ``start`` [B, N, d]."""
        for layer in range(start, self.depth):
            x = self.block(layer, x, edit)
        return self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """Compute logits [B, K] from the tokens after the last layer [B, n, d]."""
        x = x[:, 0] if self.rows == CLS else x[:, 1:].mean(1)
        if "norm.weight" in self.weights:
            x = self.norm("norm", x)
        if "projection.weight" in self.weights:
            x = self.linear("projection", x)
        if self.cosine:
            x = self.scale * F.normalize(x, dim=-1)
        return self.linear("head", x)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    # -- tangents --------------------------------------------------------------------------------------------------------------------

    def attend_and_hidden_jvp(
        self, layer: int, x: Tensor, tx: Tensor, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute values and tangents of :meth:`attend` and :meth:`hidden`.

        For tokens x [B, N, d] moving along tx, of these rows: (a, ta, u, tu).

        Written out, since fused attention has no forward-mode derivative.
        """
        at = f"layers.{layer}"
        h, th = self._norm_jvp(f"{at}.norm1", x, tx)
        inputs = (("query", rows), ("key", slice(None)), ("value", slice(None)))
        q, k, v = (self._split(self.linear(f"{at}.{n}", h[:, r])) for n, r in inputs)
        tq, tk, tv = (self._split(F.linear(th[:, r], self.weights[f"{at}.{n}.weight"])) for n, r in inputs)
        size = q.shape[-1] ** -0.5
        p = (q @ k.transpose(-1, -2) * size).softmax(-1)
        ts = (tq @ k.transpose(-1, -2) + q @ tk.transpose(-1, -2)) * size
        tp = p * (ts - (p * ts).sum(-1, keepdim=True))
        mixed, tmixed = (y.transpose(1, 2).flatten(2) for y in (p @ v, tp @ v + p @ tv))
        a = x[:, rows] + self.linear(f"{at}.out", mixed)
        ta = tx[:, rows] + F.linear(tmixed, self.weights[f"{at}.out.weight"])
        n, tn = self._norm_jvp(f"{at}.norm2", a, ta)
        before = self.linear(f"{at}.fc1", n)
        with torch.enable_grad():
            leaf = before.detach().requires_grad_()
            u = ACTIVATIONS[self.activation](leaf)
        (slope,) = torch.autograd.grad(u, leaf, torch.ones_like(u))
        u, tu = u.detach(), slope * F.linear(tn, self.weights[f"{at}.fc1.weight"])
        return a, ta, u, tu

    def _norm_jvp(self, name: str, x: Tensor, tx: Tensor) -> tuple[Tensor, Tensor]:
        centred, tcentred = x - x.mean(-1, keepdim=True), tx - tx.mean(-1, keepdim=True)
        size = (centred.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()
        n = centred * size
        tn = size * (tcentred - n * (n * tcentred).mean(-1, keepdim=True))
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return n * weight if bias is None else n * weight + bias, tn * weight


def clean_pass(net: NeuronVit, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run the network from tokens x [B, N, d] without edits.

    Returns hidden vectors where neurons are, by layer (L times [B, R, D]), and logits [B, K].
    """
    seen: list[Tensor] = []

    def keep(layer: int, hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden

    logits = net.run(0, x, keep)
    return seen, logits


def check_labels(net: NeuronVit, wanted: Sequence[str]) -> list[int]:
    """Return the positions of classes in the head.

    Raises ValueError for a class that it does not have.
    """
    for label in wanted:
        if label not in net.labels:
            raise ValueError(f"the head '{net.name}' has no class '{label}': it has {', '.join(net.labels)}.")
    return [net.labels.index(label) for label in wanted]
