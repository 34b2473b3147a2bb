"""CLIP zero-shot classification (Radford et al. 2021, section 3.1.4): images are compared with the mean direction of a few phrasings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .label_text import REST

LOGIT_SCALE = 100.0
"""exp of CLIP's learnt temperature, which its training clips at 100 and ends at."""
SLOT = "{}"


def read_templates(text: str) -> tuple[str, ...]:
    """Read prompt templates, one per line, each with ``{}`` for the phrase.

    Raises ValueError where one has none, or none is given.
    """
    templates = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    bad = next((t for t in templates if t.count(SLOT) != 1), None)
    if bad is not None:
        raise ValueError(f"the template '{bad}' needs exactly one {SLOT}, where the phrase goes: 'a photo of a person with {SLOT}'.")
    return templates or (SLOT,)


def phrasings(members: Sequence[str], templates: Sequence[str], attribute: str) -> tuple[str, ...]:
    """List every phrase in every template.

    Raises ValueError for "...", which has no words.
    """
    if REST in members:
        raise ValueError(f"a class of '{attribute}' has '{REST}' as a phrase, which CLIP cannot read: say in words what is seen instead.")
    return tuple(t.replace(SLOT, m) for m in members for t in templates)


def class_direction(embeddings: Tensor) -> Tensor:
    """Average the text embeddings of a class to a unit direction.

    Embeddings [P, D] of the class's phrasings -> float32 [D], length 1.
    """
    return F.normalize(F.normalize(embeddings.float(), dim=-1).mean(0), dim=-1)


def zero_shot(image_embeddings: Tensor, directions: Tensor, scale: float = LOGIT_SCALE) -> tuple[Tensor, Tensor]:
    """Compute class probabilities from image embeddings and class directions.

    Embeddings [B, D] and directions [K, D] -> probabilities float32 [B, K], and the largest cosine [B].
    """
    cosine = F.normalize(image_embeddings.float(), dim=-1) @ directions.to(image_embeddings.device).float().T
    return torch.softmax(scale * cosine, dim=-1), cosine.amax(-1)
