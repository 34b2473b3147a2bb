"""A classifier made of CLIP and words: it reads attributes whose classes are phrases, and needs no training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ...methods.labels.label_text import ClassSpec
from ...models.attribute_classifier import AttributeClassifier
from ..core.progress import WorkStage
from ..core.types import Clip, ClipVision
from .classifier import HostClassifier
from .clip_zero_shot import clip_source

T = TypeVar("T")

CHUNK = 16
"""Images that CLIP reads at once."""


class ClipClassifier(HostClassifier):
    """CLIP zero-shot (Radford et al. 2021) in the form of a classifier.

    ``classes``: attribute -> class -> phrases. ``files``: see :func:`.clip_zero_shot.clip_source`, with the same errors.
    """

    has_network = False

    def __init__(
        self,
        vision: ClipVision,
        clip: Clip,
        classes: ClassSpec,
        templates: Sequence[str],
        files: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:
        source, self.note = clip_source(vision, clip, classes, templates, files)
        self._vision, self._source = vision, source
        self.name = f"CLIP: {', '.join(classes)}"
        self.attributes = dict(source.attributes)

    @property
    def model(self) -> AttributeClassifier:
        """Refuse: there is no network of its own."""
        raise ValueError(
            "this classifier is CLIP with your words, and this node needs a classifier with a network of its own: connect Load Attribute "
            "Classifier."
        )

    def fingerprint(self) -> str:
        """Return a text that changes with CLIP's weights and with the words."""
        return json.dumps(dict(self._source.key), sort_keys=True)

    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        """Compute class probabilities of an IMAGE: attribute -> float32 [B, K] on the CPU."""
        parts = self._by_chunk(images, lambda chunk: self._source.read(chunk, None))
        return {attribute: torch.cat([read[attribute].float().cpu() for read in parts]) for attribute in self.attributes}

    def embed(self, images: Tensor) -> Tensor:
        """Compute CLIP's projected embeddings of an IMAGE [B, H, W, C]: float32 [B, D] on the CPU."""
        return torch.cat(self._by_chunk(images, lambda chunk: self._vision.encode_image(chunk)["image_embeds"].float().cpu()))

    def _by_chunk(self, images: Tensor, read: Callable[[Tensor], T]) -> list[T]:
        if images.ndim != 4 or not images.numel() or images.shape[-1] not in (3, 4):
            raise ValueError(f"a classifier reads images of shape [B, H, W, 3 or 4]; met {list(images.shape)}: connect decoded images.")
        stage, parts = WorkStage("CLIP Attribute Classifier", len(images)), []
        for start in range(0, len(images), CHUNK):
            parts.append(read(images[start : start + CHUNK, ..., :3]))
            stage.update(min(start + CHUNK, len(images)))
        return parts
