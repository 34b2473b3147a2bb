"""The pack's own networks under ComfyUI's memory management: loaded with the diffusion model, counted with it, offloaded with it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...models.adp import AdpFile
from ...models.sae import SaeFile
from .types import Model

NETWORKS_KEY = "equipoise"
"""Key of the pack's networks among the additional models of a MODEL."""

File = TypeVar("File", AdpFile, SaeFile)


def managed_sae(file: SaeFile) -> tuple[SaeFile, list[ModelPatcher]]:
    """Return the file with an autoencoder that ComfyUI moves, for sampling, and that network's patcher."""
    return _managed(file, "sae", stored_digest=file.digest)


def managed_adp(file: AdpFile | None) -> tuple[AdpFile | None, list[ModelPatcher]]:
    """Return the file with a predictor that ComfyUI moves, for sampling, and its patcher.

    None if there is no predictor.
    """
    return (file, []) if file is None or file.predictor is None else _managed(file, "predictor")


def _managed(file: File, attribute: str, **unchanged: str) -> tuple[File, list[ModelPatcher]]:
    """Cache one copy of the network and its patcher on the file object.

    ComfyUI reports a leak if a network outlives its patcher.
    """
    cache = vars(file)
    if "_managed" not in cache:
        network = _twin(getattr(file, attribute))
        patcher = ModelPatcher(
            network,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        cache["_managed"] = replace(file, **{attribute: network}, **unchanged), [patcher]
    return cache["_managed"]


def _twin(module: nn.Module) -> nn.Module:
    """Copy a module onto the same storage.

    ComfyUI may move the copy, while the file's own network stays where other nodes expect it.
    """
    shared: dict[int, torch.Tensor] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    with torch.no_grad():
        shared.update({id(b): b.detach() for b in module.buffers()})
    return copy.deepcopy(module, shared).eval()


def load_with(model: Model, patchers: Iterable[ModelPatcher]) -> None:
    """Load networks whenever MODEL is loaded, each once for all nodes.

    ``model`` is a clone of the caller's own, which is changed.
    """
    networks = list(model.get_additional_models_with_key(NETWORKS_KEY))
    for patcher in patchers:
        if not any(patcher.is_clone(other) for other in networks):
            networks.append(patcher)
    if networks:
        model.set_additional_models(NETWORKS_KEY, networks)
