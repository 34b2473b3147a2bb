"""Networks and optimisers in a checkpoint's tensors: written under names, and taken over whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SLOTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam and AdamW keep of a parameter."""


def checkpoint_tensors(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of networks, under their names here, and of an optimiser."""
    tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for index, slot in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
    return tensors


def restore(modules: Mapping[str, nn.Module], optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Take over what :func:`checkpoint_tensors` gave; other tensors are let be.

    Raises ValueError, with nothing changed, where one is missing, is of another shape or type, or holds values that are not finite.
    """
    found = {name: _part(tensors, f"{name}.") for name in modules}
    for name, module in modules.items():
        _check(found[name], {k: (v.shape, v.dtype) for k, v in module.state_dict().items()}, name)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        index, _, name = key.partition(".")
        if not index.isascii() or not index.isdecimal() or int(index) >= len(parameters):
            raise ValueError(f"'optimizer.{key}' belongs to no parameter")
        slots.setdefault(int(index), {})[name] = value
    for index, slot in slots.items():
        p = parameters[index]
        shapes = {"step": torch.Size(), "exp_avg": p.shape, "exp_avg_sq": p.shape}
        _check(slot, {k: (shapes[k], torch.float32 if k == "step" else p.dtype) for k in SLOTS}, f"optimizer.{index}")
    for name, module in modules.items():
        module.load_state_dict(found[name])
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _check(found: Mapping[str, Tensor], wanted: Mapping[str, tuple[torch.Size, torch.dtype]], name: str) -> None:
    if found.keys() != wanted.keys():
        raise ValueError(f"'{name}' lacks or has too many of its tensors ({', '.join(sorted(found.keys() ^ wanted.keys())[:3])})")
    for key, (shape, dtype) in wanted.items():
        value = found[key]
        if (value.shape, value.dtype) != (shape, dtype):
            raise ValueError(f"'{name}.{key}' is {value.dtype} {list(value.shape)}, and {dtype} {list(shape)} was expected")
        if not bool(value.isfinite().all()):
            raise ValueError(f"'{name}.{key}' is not finite")
