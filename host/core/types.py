"""Names for the objects that ComfyUI hands to the pack.

An annotation with one of these names, or with ``Any``, means an object of the host. Ours have classes of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel as ClipVision
    from comfy.conds import CONDRegular as ModelInput
    from comfy.controlnet import ControlBase as ControlNet
    from comfy.model_patcher import ModelPatcher as Model
    from comfy.model_patcher import ModelPatcher as Patcher
    from comfy.patcher_extension import WrapperExecutor as Executor
    from comfy.samplers import KSAMPLER as Sampler
    from comfy.samplers import CFGGuider as Guider
    from comfy.sd import CLIP as Clip
    from comfy.sd import VAE as Vae
    from server import PromptServer as Server
else:
    ClipVision = ControlNet = Model = ModelInput = Patcher = Executor = Sampler = Guider = Clip = Vae = Server = Any

Conditioning = list[Any]
"""CONDITIONING: a list of pairs [text features, dict]."""
ConditioningEntry = dict[str, Any]
"""The dict of one pair of a CONDITIONING: area, mask, control, uuid and the like."""
Graph = dict[str, Any]
"""The queued graph in API form, as JSON: node id -> class and inputs."""
Image = Tensor
"""IMAGE: [N, H, W, C] in 0..1."""
Latent = dict[str, Any]
"""LATENT: ``samples`` [N, C, H, W], and where there are any ``noise_mask`` and ``batch_index``."""
ModelOptions = dict[str, Any]
"""Options of a MODEL, with ``transformer_options`` among them."""
Options = dict[str, Any]
"""Transformer options: what a patch gets with every call."""


class ModelSampling(Protocol):
    """The noise schedule of a MODEL."""

    sigma_min: Tensor
    """Lowest sigma."""
    sigma_max: Tensor
    """Highest sigma."""

    def percent_to_sigma(self, percent: float) -> float:
        """Convert a share of the sampling steps to a sigma."""
