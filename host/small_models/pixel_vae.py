"""A VAE that only rearranges pixels, for diffusion models without a learned one."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.pixel_space_convert
import comfy.sd
import torch
import torch.nn.functional as F
from torch import Tensor


class SpaceToDepth(comfy.pixel_space_convert.PixelspaceConversionVAE):
    """Convert between pixels and space-to-depth latents.

    [B, 3, H, W] <-> [B, 3 r r, H / r, W / r]; channel = colour * r * r + row * r + column.
    """

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def encode(self, pixels: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        """Pack pixels into latents."""
        return F.pixel_unshuffle(pixels, self.ratio)

    def decode(self, samples: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        """Unpack latents into pixels."""
        # a copy even at ratio 1: older hosts scale the result in place, which would change the caller's latent
        return F.pixel_shuffle(samples, self.ratio).clone()


class PixelVae(comfy.sd.VAE):
    """The host's VAE around :class:`SpaceToDepth`: images in 0..1 <-> latents in -1..1, exact in float32."""

    def __init__(self, ratio: int = 1) -> None:
        # float32 whatever the host prefers: half precision would round the pixels and save nothing
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
        self.first_stage_model = SpaceToDepth(ratio).eval().requires_grad_(False)
        self.downscale_ratio = self.upscale_ratio = ratio
        self.latent_channels = 3 * ratio * ratio
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=comfy.model_management.vae_offload_device()
        )
        size = torch.finfo(self.vae_dtype).bits // 8
        self.memory_used_encode = lambda shape, dtype: 3 * size * 3 * shape[2] * shape[3]
        self.memory_used_decode = lambda shape, dtype: 3 * size * 3 * ratio * ratio * shape[2] * shape[3]
