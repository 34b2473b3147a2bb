"""The model family of a file, read from its header, before any weight is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import comfy.model_detection
import torch

from ...models.files import read_metadata
from .sites import FAMILIES

MOST_HEADER = 100_000_000
"""Largest header that is read, in bytes."""
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def family_of_file(path: Path) -> str | None:
    """Return the family of a safetensors file of a diffusion model, as ADP files name it.

    The host's own detection reads names and shapes of the tensors. A family that the pack does not name has the host's name ("Flux").
    Returns None where it is not known.
    """
    named = _named_family(path)
    if named is not None:
        return named
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size)) if size <= MOST_HEADER else {}
        tensors = {
            key: torch.empty(entry["shape"], dtype=_TYPES.get(entry["dtype"], torch.float32), device="meta")
            for key, entry in header.items()
            if key != "__metadata__"
        }
        prefix = comfy.model_detection.unet_prefix_from_state_dict(tensors)
        config = comfy.model_detection.model_config_from_unet(tensors, prefix)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, struct.error):
        return None  # the loader will say what is wrong with the file
    name = type(config).__name__
    return None if config is None else FAMILIES.get(name, name)


def _named_family(path: Path) -> str | None:
    """Return the family that a file of the pack's own small models states."""
    try:
        return read_metadata(path).get("base_model") or None
    except (OSError, ValueError):
        return None
