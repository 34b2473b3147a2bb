"""The pack's own networks under the host's memory management: loaded beside the diffusion model, counted with it, offloaded with it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...models.adp import AdpFile
from ...models.sae import SaeFile

KEY = "equipoise"


def managed_sae(file: SaeFile) -> tuple[SaeFile, list[ModelPatcher]]:
    """The same file for use in sampling, whose autoencoder the host moves, and the host's handle of it."""
    return _managed(file, "sae", stored_digest=file.digest)


def managed_adp(file: AdpFile | None) -> tuple[AdpFile | None, list[ModelPatcher]]:
    """The same file for use in sampling, whose predictor the host moves, and the host's handle of it; none where there is no predictor."""
    return (file, []) if file is None or file.predictor is None else _managed(file, "predictor")


def _managed(file: Any, attribute: str, **same: Any) -> tuple[Any, list[ModelPatcher]]:
    """One twin and one handle for each file object, and kept on it, so that they live as long as it does: the host takes a network that
    outlives its handle for a leak."""
    kept = vars(file)
    if "_managed" not in kept:
        network = _twin(getattr(file, attribute))
        handle = ModelPatcher(
            network,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        kept["_managed"] = replace(file, **{attribute: network}, **same), [handle]
    return kept["_managed"]


def _twin(module: nn.Module) -> nn.Module:
    """A module of its own on the same storage. The host may move it to an accelerator, while the file's own stays where other nodes look
    for it."""
    same: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    with torch.no_grad():
        same.update({id(b): b.detach() for b in module.buffers()})
    return copy.deepcopy(module, same).eval()


def load_beside(model: ModelPatcher, handles: Iterable[ModelPatcher]) -> None:
    """Have networks loaded whenever MODEL is, each once however many nodes use it. ``model``: a clone of one's own, which is changed."""
    together = list(model.get_additional_models_with_key(KEY))
    for handle in handles:
        if not any(handle.is_clone(other) for other in together):
            together.append(handle)
    if together:
        model.set_additional_models(KEY, together)
