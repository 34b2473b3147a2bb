"""Names for the objects that ComfyUI hands to the pack.

An annotation with one of these names, or with ``Any``, means an object of the host. Ours have classes of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel as ClipVision
    from comfy.model_patcher import ModelPatcher as Model
    from comfy.samplers import CFGGuider as Guider
    from comfy.sd import CLIP as Clip
    from comfy.sd import VAE as Vae
else:
    ClipVision = Model = Guider = Clip = Vae = Any

Conditioning = list[Any]
"""CONDITIONING: a list of pairs [text features, dict]."""
Image = Tensor
"""IMAGE: [N, H, W, C] in 0..1."""
Latent = dict[str, Any]
"""LATENT: ``samples`` [N, C, H, W], and where there are any ``noise_mask`` and ``batch_index``."""
ModelOptions = dict[str, Any]
"""Options of a MODEL, with ``transformer_options`` among them."""
Options = dict[str, Any]
"""Transformer options: what a patch gets with every call."""
