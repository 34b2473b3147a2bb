"""A zero-shot head: an attribute whose classes are texts, read by the cosine between image and text embeddings (Radford et al., 2021)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .files import FileFormat, named_classes, write_safetensors

FORMAT = FileFormat(
    "equipoise-zero-shot-head", other="is not a zero-shot head", choose="make one with Zero-Shot Attribute Head", mend="make it again"
)
ALIKE = 0.95
"""Cosine of two classes' embeddings above which the head hardly tells them apart."""


@dataclass(frozen=True)
class ZeroShotHead:
    """An attribute whose classes are texts, for a CLIP vision model."""

    attribute: str
    """Name of the attribute."""
    labels: tuple[str, ...]
    """Classes, in order."""
    embeddings: Tensor
    """Projected text embeddings float32 [K, E], of length 1."""
    scale: float = 100.0
    """Factor of the logits; 100 in OpenAI's CLIP."""
    info: dict[str, Any] = field(default_factory=dict)
    """The prompts, and what encoded them."""

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"the attribute '{self.attribute}' needs two or more different classes, and it has {list(self.labels)}.")
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.labels):
            raise ValueError(
                f"the attribute '{self.attribute}' has {len(self.labels)} classes and embeddings of shape {list(self.embeddings.shape)}: "
                "it needs one row for each class."
            )
        if not bool(self.embeddings.isfinite().all()) or not bool(self.embeddings.any(1).all()):
            raise ValueError(f"text embeddings of '{self.attribute}' are empty or not finite: encode its prompts with another CLIP.")

    @property
    def width(self) -> int:
        """Entries of an embedding."""
        return self.embeddings.shape[1]

    def cosines(self) -> Tensor:
        """Compute the cosine of every two classes, [K, K]."""
        e = F.normalize(self.embeddings.float(), dim=-1)
        return e @ e.T

    def text(self) -> str:
        """Describe the head.

        With a warning if classes are nearly the same to the text encoder.
        """
        c = self.cosines()
        lines = [f"{self.attribute}: {', '.join(self.labels)}; embeddings of {self.width}, scale {self.scale:g}"]
        for i, a in enumerate(self.labels):
            lines.append(f"  {a}: cosine " + ", ".join(f"{c[i, j]:.3f} to {b}" for j, b in enumerate(self.labels) if j != i))
        close = [(a, b) for i, a in enumerate(self.labels) for j, b in enumerate(self.labels) if i < j and c[i, j] > ALIKE]
        for a, b in close:
            lines.append(f"  WARNING: '{a}' and '{b}' have nearly the same embedding (cosine above {ALIKE:g}), so the head confuses them")
        return "\n".join(lines)


def class_embeddings(prompts: list[Tensor]) -> Tensor:
    """Average the embeddings of each class's prompts: [K, E].

    Prompt embeddings [P, E] have length 1, and so have the means.
    """
    return torch.stack([F.normalize(F.normalize(p.float(), dim=-1).mean(0), dim=-1) for p in prompts])


def save_zero_shot_head(head: ZeroShotHead, path: str | os.PathLike[str]) -> None:
    """Write a head as safetensors."""
    meta = {
        **FORMAT.header(),
        "attribute": head.attribute,
        "labels": json.dumps(head.labels),
        "scale": repr(head.scale),
        "info": json.dumps(head.info),
    }
    write_safetensors(path, {"embeddings": head.embeddings.float().contiguous()}, meta)


def load_zero_shot_head(path: str | os.PathLike[str]) -> ZeroShotHead:
    """Load what :func:`save_zero_shot_head` wrote.

    Raises ValueError where the file is of another kind or damaged.
    """
    return FORMAT.load(path, _read_head)


def _read_head(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> ZeroShotHead:
    labels = named_classes({meta["attribute"]: json.loads(meta["labels"])})[meta["attribute"]]
    scale, info = float(meta["scale"]), dict(json.loads(meta["info"]))
    if not math.isfinite(scale):
        raise ValueError("its scale is not finite")
    return ZeroShotHead(meta["attribute"], labels, tensors["embeddings"].float(), scale, info)
