"""Hashes of tensors, for keys of checkpoints and for the names of autoencoders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor


def tensor_digest(tensor: Tensor) -> str:
    """Hash a tensor's shape and values (as float32): 16 hexadecimal digits."""
    values = tensor.detach().cpu().float().contiguous()
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()[:16]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and values (as float32) in the order given: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def stored_digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and values as they are stored, sorted by name: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
