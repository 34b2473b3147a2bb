"""Differences between the supported versions of the host (from v0.3.64 on).

No other file asks for the version. A feature that an older host lacks is left out or keeps its default.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from os import PathLike
from typing import TypeVar

import comfy.model_management
import comfy.sample
import torch
from comfy_api.latest import io

from .types import Latent, Model, Patcher

NodeInput = TypeVar("NodeInput", bound=io.Input)


def known_arguments(arguments: dict[str, object]) -> dict[str, object]:
    """Keep the arguments that this host's ``io.Schema`` knows; v0.3.64 has no ``search_aliases``."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return {name: value for name, value in arguments.items() if name in known}


def advanced(node_input: NodeInput) -> NodeInput:
    """Fold a node's input away among the advanced ones.

    The host must have them; v0.3.64 has not.
    """
    if hasattr(node_input, "advanced"):
        node_input.advanced = True
    return node_input


def intermediate_dtype() -> torch.dtype:
    """Return the dtype of latents and images between nodes; float32 on hosts without the option."""
    return getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()


def reloadable(patcher: Model, load: Callable[[str | PathLike[str]], Model], path: str | PathLike[str]) -> Model:
    """Let newer hosts load a MODEL again for a second device, by ``load(path)``."""
    patcher.cached_patcher_init = (load, (path,))
    return patcher


def fitting_latent(model: Model, latent: Latent) -> torch.Tensor:
    """Fit the samples of a LATENT to a MODEL.

    An empty latent gets the model's channels, and on newer hosts its size too.
    """
    fix = comfy.sample.fix_empty_latent_channels
    ratios = [n for n in ("downscale_ratio_spacial", "downscale_ratio_temporal") if n in inspect.signature(fix).parameters]
    return fix(model, latent["samples"], *(latent.get(n) for n in ratios))


def resident(patcher: Patcher) -> Patcher:
    """Clone a patcher so that its weights stay in memory.

    Where the host streams weights, the clone does not.
    """
    dynamic = "disable_dynamic" in inspect.signature(patcher.clone).parameters
    return patcher.clone(disable_dynamic=True) if dynamic else patcher.clone()
