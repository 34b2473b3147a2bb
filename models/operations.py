"""The layers that networks are built of: those of ``torch.nn``, or the host's, which cast their weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

Placement = torch.device | torch.dtype | None
"""Keyword arguments ``device`` and ``dtype`` of a layer."""


class Operations(Protocol):
    """A module or class that holds the layers."""

    Linear: type[nn.Linear]
    """Linear map."""
    Conv1d: type[nn.Conv1d]
    """Convolution over a line."""
    Conv2d: type[nn.Conv2d]
    """Convolution over a map."""
    GroupNorm: type[nn.GroupNorm]
    """Normalisation over groups of channels."""
    LayerNorm: type[nn.LayerNorm]
    """Normalisation over the channels of a token."""
    Embedding: type[nn.Embedding]
    """Table of vectors by index."""
