"""Hash tensors and modules, for keys of checkpoints and for the names of autoencoders."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Digest(Protocol):
    """A hash that is being computed, such as ``hashlib.sha256()``."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""


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


def module_mark(module: nn.Module) -> str:
    """Hash a few numbers of every weight: 16 hexadecimal digits.

    This tells files of one kind apart.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if value.is_floating_point():
            digest.update(name.encode())
            digest.update(value.detach().flatten()[:8].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def patched_weights_mark(weights: Mapping[str, Sequence[Any]]) -> str:
    """Hash a few numbers of every weight and of its patches (LoRA).

    Strengths of the patches count too. Returns 16 hexadecimal digits. ``weights``: name -> the weight, then its patches, as ComfyUI's
    ``ModelPatcher.get_key_patches`` gives them.
    """
    digest = hashlib.sha256()
    for name, (weight, *patches) in sorted(weights.items()):
        digest.update(name.encode())
        _update_with_mark(digest, weight)
        for strength, value, strength_model, *_ in patches:
            digest.update(f"{strength} {strength_model}".encode())
            _update_with_mark(digest, getattr(value, "weights", value))
    return digest.hexdigest()[:16]


def _update_with_mark(digest: Digest, value: object) -> None:
    # In half precision, so that the same file loaded in another precision stays the same; quantised tensors may refuse, and are left out.
    if isinstance(value, (tuple, list)):
        for part in value:
            _update_with_mark(digest, part)
    elif isinstance(value, Tensor) and value.is_floating_point():
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            digest.update(value.detach().flatten()[:8].to("cpu", torch.float16).contiguous().numpy().tobytes())


def network_digest(facts: str, weights: Mapping[str, Tensor]) -> str:
    """Hash facts, and names and values of weights: 16 hexadecimal digits.

    Values as float32; weights sorted by name.
    """
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def values_digest(parts: Sequence[str | Tensor], digits: int = 16) -> str:
    """Hash texts and tensor values in the order given.

    Tensors in their own precision. Returns hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:digits]
