"""Run a small random U-Net of Stable Diffusion 1.5's kind in the host's samplers.

ComfyUI must be importable first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

N, SIDE, CONTEXT = 2, 8, 32
UNET: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1, 1], "channel_mult": [1, 2, 4],
    "transformer_depth": [1, 1, 0], "transformer_depth_output": [1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "context_dim": CONTEXT, "use_spatial_transformer": True, "legacy": False, "use_linear_in_transformer": False,
    "use_temporal_attention": False, "adm_in_channels": None,
}  # fmt: skip
"""Three levels on latents of 8 x 8; the middle block has 128 channels on 2 x 2, the output of up block 1 has 128 on 4 x 4."""
MIDDLE, UP = ("middle", 128), ("output.1", 128)


def randomise(network: torch.nn.Module, seed: int = 7) -> torch.nn.Module:
    """Set random weights scaled by 1 / sqrt(fan in), also where training starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            fan = value[0].numel() if value.ndim > 1 else 1
            drawn = torch.randn(value.shape, generator=generator) / fan**0.5
            value.copy_(drawn if value.ndim > 1 else 0.1 * drawn + float(name.endswith("weight")))
    return network.eval().requires_grad_(False)


def tiny_sd(dtype: torch.dtype = torch.float32, cast: torch.dtype | None = None, operations: Any = None) -> Any:
    """Make a MODEL.

    ``dtype``: type of its weights; ``cast``: type of its arithmetic if it differs; ``operations``: layers to use (None: the host's).
    """
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(UNET)
    config.unet_config["num_heads"], config.unet_config["num_head_channels"] = 4, -1
    config.set_inference_dtype(dtype, cast)
    if operations is not None:
        config.custom_operations = operations
    model = config.get_model({}, "")
    device = torch.device("cpu")
    randomise(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def text(seed: int) -> list[list[Any]]:
    """Make a CONDITIONING of random features."""
    return [[torch.randn(1, 8, CONTEXT, generator=torch.Generator().manual_seed(seed)), {}]]


def control_net(seed: int = 9) -> Any:
    """Make a CONTROL_NET of the same shape."""
    import comfy.cldm.cldm
    import comfy.controlnet

    shape = {k: v for k, v in UNET.items() if k not in ("out_channels", "transformer_depth_output", "use_temporal_attention")}
    network = comfy.cldm.cldm.ControlNet(**shape, hint_channels=3, num_heads=4, num_head_channels=-1, dtype=torch.float32)
    device = torch.device("cpu")
    return comfy.controlnet.ControlNet(randomise(network, seed), load_device=device, manual_cast_dtype=None)


class Scene:
    """Inputs of a sampler: MODEL, conditionings, LATENT, and KSampler's settings or a guider.

    ``guider``: (MODEL, scene) -> GUIDER.
    """

    def __init__(self, host: Any, model: Any) -> None:
        self.host, self.model = host, model
        self.positive, self.negative = text(1), text(2)
        self.latent: dict[str, Any] = {"samples": torch.zeros(N, 4, SIDE, SIDE)}
        self.settings: dict[str, Any] = {"seed": 5, "steps": 2, "cfg": 3.0, "sampler": "euler", "scheduler": "normal", "denoise": 1.0}
        self.guider: Any = None

    def but(self, **changed: Any) -> Scene:
        """Return a copy with some parts changed; ``settings`` are merged."""
        other = Scene.__new__(Scene)
        other.__dict__ = {**self.__dict__, **changed, "settings": {**self.settings, **changed.get("settings", {})}}
        return other

    def sample(self) -> Tensor:
        """Sample and return latents [N, 4, H, W]."""
        if self.guider is None:
            return self.host.ksampler(self.model, self.positive, self.negative, self.latent, **self.settings)["samples"]
        import comfy.sample
        import comfy.samplers

        s = self.settings
        sigmas = comfy.samplers.calculate_sigmas(self.model.get_model_object("model_sampling"), s["scheduler"], s["steps"])
        start = self.latent["samples"]
        sampler = comfy.samplers.sampler_object(s["sampler"])
        noise = comfy.sample.prepare_noise(start, s["seed"])
        return self.guider(self.model, self).sample(noise, start, sampler, sigmas, seed=s["seed"])


def some(latent: Mapping[str, Any], seed: int = 3) -> dict[str, Any]:
    """Make a random LATENT of the same shape."""
    return {**latent, "samples": torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(seed))}
