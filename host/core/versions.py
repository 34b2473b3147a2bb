"""What differs between the versions of the host that are supported (from v0.3.64 on), in one place.

Elsewhere one code path serves all: no file asks which version it runs in. What an older host lacks is left out or stands at its default.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import comfy.model_management
import comfy.sample
import torch
from comfy_api.latest import io


def known_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those that this host's ``io.Schema`` knows: v0.3.64 has no ``search_aliases``."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return {name: value for name, value in arguments.items() if name in known}


def advanced(made: Any) -> Any:
    """Mark a node's input as advanced, where the host has such inputs.

    v0.3.64 has none.
    """
    if hasattr(made, "advanced"):
        made.advanced = True
    return made


def intermediate_dtype() -> torch.dtype:
    """Of latents and images between nodes: float32 before the host could be told otherwise."""
    return getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()


def reloadable(patcher: Any, load: Any, path: Any) -> Any:
    """A MODEL that newer hosts can make again for a second device, by ``load(path)``.

    Older ones do not look.
    """
    patcher.cached_patcher_init = (load, (path,))
    return patcher


def fitting_latent(model: Any, latent: dict[str, Any]) -> torch.Tensor:
    """Return the samples of a LATENT as a MODEL takes them.

    An empty latent gets the model's channels, on newer hosts its size too.
    """
    fix = comfy.sample.fix_empty_latent_channels
    ratios = [n for n in ("downscale_ratio_spacial", "downscale_ratio_temporal") if n in inspect.signature(fix).parameters]
    return fix(model, latent["samples"], *(latent.get(n) for n in ratios))


def resident(patcher: Any) -> Any:
    """Clone a patcher so that its weights stay in memory.

    Where the host streams weights, the clone does not.
    """
    dynamic = "disable_dynamic" in inspect.signature(patcher.clone).parameters
    return patcher.clone(disable_dynamic=True) if dynamic else patcher.clone()
