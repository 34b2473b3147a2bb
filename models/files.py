"""Safetensors files with metadata: read, checked, and written whole or not at all."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file under a temporary name, then rename it, so that a reader never meets half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Cloned, because safetensors refuses tensors that share memory (knots, which several attributes have in common).
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(partial), metadata=dict(metadata or {}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file under a temporary name, then rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Metadata of a safetensors file, without its tensors. Raises ValueError where the file is not whole."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            (length,) = struct.unpack("<Q", head)
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
            if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
                raise ValueError("the header is no JSON object")
    except (struct.error, ValueError) as error:
        raise ValueError(f"'{path.name}' is not a whole safetensors file ({error}): copy or download it again.") from error
    return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file. Raises ValueError where the file is not whole."""
    path = Path(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as handle:
            # Cloned, so that the tensors do not hold the file mapped: it may be replaced while they are in use.
            tensors = {key: handle.get_tensor(key).clone() for key in handle.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(handle.metadata() or {})
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors raises its own type, which is no ValueError
        raise ValueError(f"'{path.name}' is not a whole safetensors file ({error}): copy or download it again.") from error
    return tensors, metadata


def parameters_of(module: torch.nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """State dict, floating tensors cast to ``dtype``."""
    return {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in module.state_dict().items()}
