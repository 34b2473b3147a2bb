"""Attribute classifiers, which read perceived attributes from an image, with one softmax per attribute.

Two architectures share one interface and one file format: a pre-norm vision transformer with a CLS token (the labeller) and a convolutional
network (the judge). Attributes are perceived in the picture; they say nothing of who a person is.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import FileFormat, check_finite, check_shapes, named_classes, parameters_of, quoted, write_safetensors
from .operations import Operations

FORMAT = FileFormat(
    "equipoise-attribute-classifier",
    other="is not an attribute classifier",
    choose="choose a file from models/attribute_classifiers, or a folder there with a transformers image classifier",
    mend="copy it again or choose another file",
    required=("architecture", "attributes", "image_size", "config"),
)
LARGEST_SIZE = 8192
"""Largest size that a file may state, of images and of layers."""


class AttributeClassifier(nn.Module):
    """Base class. ``attributes``: name -> classes, in the order of the outputs."""

    architecture = ""

    def __init__(self, attributes: Mapping[str, tuple[str, ...]], image_size: int) -> None:
        super().__init__()
        self.attributes = {k: tuple(v) for k, v in attributes.items()}
        self.image_size = image_size

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Sizes of the network as a file holds them, for :meth:`build`."""

    @classmethod
    def build(
        cls, attributes: Mapping[str, tuple[str, ...]], image_size: int, config: Mapping[str, Any], operations: Operations = nn
    ) -> AttributeClassifier:
        """Make an untrained network of these sizes."""
        return cls(attributes, image_size, **config, operations=operations)

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Compute the last hidden vector [B, D] of normalised pixels [B, 3, S, S]."""

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize and normalise images: float32 [B, 3, S, S].

        images [B, 3, H, W] in 0..1, any size; antialiased bilinear if the size differs.
        """
        images = images.float()
        size = (self.image_size, self.image_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return images.clamp(0, 1) * 2 - 1

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute logits of normalised pixels [B, 3, S, S]: attribute -> [B, K]."""
        hidden = self.features(pixels)
        return {name: self.heads[name](hidden) for name in self.attributes}

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch: int = 256) -> dict[str, Tensor]:
        """Compute class probabilities of images: attribute -> float32 [N, K].

        images [N, 3, H, W] in 0..1.

        Runs where the weights are, in chunks.
        """
        parts = [self(self.preprocess(chunk.to(self._device()))) for chunk in images.split(batch)]
        return {a: torch.cat([p[a].float().softmax(-1) for p in parts]).cpu() for a in self.attributes}

    @torch.no_grad()
    def embed(self, images: Tensor, batch: int = 256) -> Tensor:
        """Compute features of images [N, 3, H, W] in 0..1: float32 [N, D]."""
        return torch.cat([self.features(self.preprocess(chunk.to(self._device()))).float().cpu() for chunk in images.split(batch)])

    def _device(self) -> torch.device:
        return next(self.parameters()).device


class TransformerBlock(nn.Module):
    """Pre-norm encoder block: self-attention, then a GELU perceptron."""

    def __init__(self, dim: int, heads: int, mlp: int, ops: Operations) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = ops.LayerNorm(dim, eps=1e-6), ops.LayerNorm(dim, eps=1e-6)
        self.query, self.key, self.value = ops.Linear(dim, dim), ops.Linear(dim, dim), ops.Linear(dim, dim)
        self.attention_out = ops.Linear(dim, dim)
        self.mlp_in, self.mlp_out = ops.Linear(dim, mlp), ops.Linear(mlp, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention and perceptron to tokens x [B, N, D]."""
        b, n, d = x.shape
        h = self.norm1(x)
        q, k, v = (f(h).view(b, n, self.heads, d // self.heads).transpose(1, 2) for f in (self.query, self.key, self.value))
        x = x + self.attention_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x))))


@dataclass(frozen=True)
class VitSizes:
    """Sizes of a vision transformer."""

    patch: int = 4
    """Side of a patch, in pixels."""
    dim: int = 64
    """Channels of a token."""
    depth: int = 6
    """Number of blocks."""
    num_heads: int = 4
    """Attention heads of a block."""
    mlp: int = 128
    """Hidden channels of a block's perceptron."""


class VisionTransformer(AttributeClassifier):
    """Vision transformer with one linear head per attribute.

    Dosovitskiy et al. 2021; pre-norm, heads on the CLS token.
    """

    architecture = "vit"

    def __init__(
        self, attributes: Mapping[str, tuple[str, ...]], image_size: int = 32, sizes: VitSizes | None = None, operations: Operations = nn
    ) -> None:
        super().__init__(attributes, image_size)
        sizes = sizes or VitSizes()
        patch, dim, depth, num_heads, mlp = sizes.patch, sizes.dim, sizes.depth, sizes.num_heads, sizes.mlp
        if dim % num_heads or patch > image_size:
            raise ValueError(
                f"{dim} channels do not divide into {num_heads} heads, or a patch of {patch} is larger than {image_size} pixels."
            )
        ops = operations
        self._sizes = sizes
        self.patch_embed = ops.Conv2d(3, dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, (image_size // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, mlp, ops) for _ in range(depth))
        self.norm = ops.LayerNorm(dim, eps=1e-6)
        self.heads = nn.ModuleDict({name: ops.Linear(dim, len(classes)) for name, classes in self.attributes.items()})

    @property
    def config(self) -> dict[str, Any]:
        """Sizes of the network, as a file stores them."""
        return asdict(self._sizes)

    @classmethod
    def build(
        cls, attributes: Mapping[str, tuple[str, ...]], image_size: int, config: Mapping[str, Any], operations: Operations = nn
    ) -> VisionTransformer:
        """Build a network of these sizes, without weights."""
        return cls(attributes, image_size, VitSizes(**config), operations)

    def features(self, pixels: Tensor) -> Tensor:
        """Compute the normalised CLS token [B, D] of pixels [B, 3, S, S]."""
        x = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.to(x).expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed.to(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class ConvNet(AttributeClassifier):
    """Small residual convolutional network with group normalisation; features are the mean over positions."""

    architecture = "cnn"

    def __init__(
        self,
        attributes: Mapping[str, tuple[str, ...]],
        image_size: int = 32,
        widths: tuple[int, ...] = (24, 48, 64),
        operations: Operations = nn,
    ) -> None:
        super().__init__(attributes, image_size)
        ops, widths = operations, tuple(widths)
        self._widths = widths
        layers, previous = [], 3
        for width in widths:
            layers.append(ConvStage(previous, width, ops))
            previous = width
        self.stages = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({name: ops.Linear(previous, len(classes)) for name, classes in self.attributes.items()})

    @property
    def config(self) -> dict[str, Any]:
        """Widths of the stages, as a file stores them."""
        return {"widths": list(self._widths)}

    def features(self, pixels: Tensor) -> Tensor:
        """Average the last stage over positions: [B, D]."""
        return self.stages(pixels).mean(dim=(2, 3))


class ConvStage(nn.Module):
    """Strided convolution, then a residual pair."""

    def __init__(self, cin: int, cout: int, ops: Operations) -> None:
        super().__init__()
        self.down = ops.Conv2d(cin, cout, 3, stride=2, padding=1)
        self.norms = nn.ModuleList(ops.GroupNorm(8, cout) for _ in range(3))
        self.convs = nn.ModuleList(ops.Conv2d(cout, cout, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution of x [B, C, H, W], then apply the residual convolutions."""
        x = F.gelu(self.norms[0](self.down(x)))
        h = F.gelu(self.norms[1](self.convs[0](x)))
        return F.gelu(x + self.norms[2](self.convs[1](h)))


ARCHITECTURES: dict[str, type[AttributeClassifier]] = {c.architecture: c for c in (VisionTransformer, ConvNet)}


def save_classifier(model: AttributeClassifier, path: str | os.PathLike[str], extra: Mapping[str, str] | None = None) -> None:
    """Write a classifier as fp16 safetensors.

    The file holds all that is needed to build it again. ``extra`` adds metadata (accuracy, licence, ...).
    """
    meta = {
        **FORMAT.header(),
        "architecture": model.architecture,
        "config": json.dumps(model.config),
        "attributes": json.dumps({k: list(v) for k, v in model.attributes.items()}),
        "image_size": str(model.image_size),
        **(extra or {}),
    }
    write_safetensors(path, parameters_of(model, torch.float16), meta)


def load_classifier(path: str | os.PathLike[str], operations: Operations = nn) -> AttributeClassifier:
    """Load what :func:`save_classifier` wrote, in float32, ready for inference.

    Raises ValueError where the file is of another kind.
    """

    def build(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> AttributeClassifier:
        if meta["architecture"] not in ARCHITECTURES:
            known = " and ".join(sorted(ARCHITECTURES))
            raise ValueError(f"its architecture is {quoted(meta, 'architecture')}, and this Equipoise reads {known}")
        network = ARCHITECTURES[meta["architecture"]]
        attributes, size, config = named_classes(json.loads(meta["attributes"])), int(meta["image_size"]), dict(json.loads(meta["config"]))
        _check_sizes(size, config, len(tensors))
        check_shapes(lambda: network.build(attributes, size, config), tensors)
        check_finite(tensors)
        model = network.build(attributes, size, config, operations)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        return model.eval().requires_grad_(False)

    return FORMAT.load(path, build)


def _check_sizes(image_size: int, config: Mapping[str, Any], tensors: int) -> None:
    """Raise ValueError for sizes that no network of so many tensors has.

    This is checked before the network is built.
    """
    sizes = {"image_size": image_size, **{k: v for k, v in config.items() if k != "widths"}}
    sizes |= {f"width {i}": v for i, v in enumerate(config.get("widths", ()), 1)}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIZE:
            raise ValueError(f"its {name[:60]} is {str(value)[:60]}, and it must be a whole number from 1 to {LARGEST_SIZE}")
    if config.get("depth", 1) > tensors:
        raise ValueError(f"its depth is {config['depth']}, and it has only {tensors} tensors")
