"""An ADM U-Net file as the host's MODEL: sampled, patched and moved between devices like any other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...models.adm_unet import AdmConfig, AdmUNet, build_unet, read_config
from ...models.files import read_safetensors
from ..core.types import ConditioningEntry, Model, ModelInput, ModelOptions, Options
from ..core.versions import intermediate_dtype, reloadable
from .adm_info import LABEL_KEY, AdmInfo, is_text_model, latent_size, read_info

WRAPPER_KEY = "equipoise_unconditional"
_HOST_SCHEDULES = {"linear": "sqrt_linear", "cosine": "cosine"}
"""guided-diffusion's name -> the host's: its "linear" is another schedule, with sigma max 36.9 instead of 157.407."""

_NARROWS = frozenset(
    ("area", "mask", "strength", "control", "gligen", "hooks", "default", "timestep_start", "timestep_end", "start_percent", "end_percent")
)
"""Entries that make two conditionings act differently even if the model reads neither."""


class PixelLatent(comfy.latent_formats.LatentFormat):
    """Pixels in -1..1 as latents, [B, 3 r r, H / r, W / r].

    Space-to-depth of side r: no scaling, and previews that show the picture.
    """

    def __init__(self, ratio: int = 1) -> None:
        self.latent_channels = 3 * ratio * ratio
        self.spacial_downscale_ratio = ratio
        share = 1.0 / (ratio * ratio)
        self.latent_rgb_factors = [
            [share if colour == c // (ratio * ratio) else 0.0 for colour in range(3)] for c in range(self.latent_channels)
        ]


class HostAdmUNet(AdmUNet):
    """The network with the host's DIFFUSION_MODEL wrappers; a learned variance is cut off."""

    null_label: int | None = None

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: Options | None = None,
        **extra: object,
    ) -> Tensor:
        """Predict the noise of x [B, C, H, W], in the same shape.

        Raises ValueError if a class label is missing or not expected.
        """
        options = transformer_options if transformer_options is not None else {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, options, **extra)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: Options | None = None,
        **extra: object,
    ) -> Tensor:
        options = transformer_options if transformer_options is not None else {}
        if y is None and self.num_classes is not None:
            raise ValueError(self._no_label(options.get("cond_or_uncond", ())))
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        return super().forward(x, timesteps, context, y, control, options, **extra)[:, : self.config.in_channels]

    def _no_label(self, roles: Sequence[int]) -> str:
        """Write the error for a conditioning without a class label.

        Role 0 is the positive one.
        """
        if 0 in roles or not roles:
            return "this diffusion model is class-conditional, and its positive conditioning has no class label: connect Class Label."
        if self.null_label is None:
            return (
                "this class-conditional diffusion model has no null label, and classifier-free guidance needs a model that was trained "
                "with one: set cfg to 1."
            )
        return (
            "this diffusion model is class-conditional, and its negative conditioning has no class label: "
            "connect the negative output of Class Label, or set cfg to 1."
        )


def activation_elements(config: AdmConfig, height: int, width: int) -> float:
    """Estimate how many numbers one row's forward holds at its peak.

    These are the skips, eight maps of the widest level, and two attention matrices per head. Measured peaks are 0.5 to 0.9 of it (P2
    CelebA-HQ, ADM 64, the portraits); the host's own formula knows only SD's widths.
    """
    skips, widest, attention = float(config.model_channels * config.channel_mult[0]), 0.0, 0.0
    for level, mult in enumerate(config.channel_mult):
        channels, share = int(mult * config.model_channels), 0.25**level
        skips += config.num_res_blocks * channels * share + (channels * share / 4 if level < config.levels - 1 else 0.0)
        widest = max(widest, 2 * channels * share)
        if config.attention[level] or level == config.levels - 1:
            attention = max(attention, 2 * config.heads(channels) * share * share * height * width)
    return (skips + 8 * widest + attention) * height * width


class AdmModel(comfy.model_base.BaseModel):
    """An ADM U-Net as the host's model class.

    Noise or velocity prediction, guided-diffusion's schedule, pixels as latents.
    """

    def __init__(self, config: comfy.supported_models_base.BASE, network: AdmUNet, info: AdmInfo) -> None:
        kinds = comfy.model_base.ModelType
        super().__init__(config, kinds.V_PREDICTION if info.prediction == "v" else kinds.EPS)
        self.diffusion_model = network
        self.equipoise_info = info

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Mapping[str, Sequence[Sequence[int]]] | None = None) -> float:
        """Estimate the bytes that one call needs for activations.

        input_shape is (rows, channels, height, width). The host splits batches by this estimate.
        """
        rows, _, height, width = input_shape
        dtype = self.manual_cast_dtype or self.get_dtype()
        return rows * activation_elements(self.diffusion_model.config, height, width) * comfy.model_management.dtype_size(dtype)

    def extra_conds(self, **kwargs: Any) -> dict[str, ModelInput]:
        """Make ``y`` of a class label.

        Text, pooled outputs and the like are ignored, because this kind of model does not use them. Raises ValueError if the label was made
        for a model with another number of classes.
        """
        stated = kwargs.get(LABEL_KEY)
        if stated is None:
            return {}
        label, classes = stated
        info = self.equipoise_info
        if info.num_classes is None:
            raise ValueError(f"'{info.name}' is an unconditional model, and it got a class label: disconnect Class Label.")
        if classes != info.num_classes:
            raise ValueError(
                f"the class label was made for a model with {classes} labels, and '{info.name}' has {info.num_classes}: "
                "connect this model to Class Label."
            )
        return {"y": comfy.conds.CONDRegular(torch.tensor([label], dtype=torch.long, device=kwargs.get("device")))}


def _config(config: AdmConfig, info: AdmInfo, dtype: torch.dtype, cast: torch.dtype | None) -> comfy.supported_models_base.BASE:
    """Make the host's model configuration object.

    The network itself is made by us.
    """
    out = comfy.supported_models_base.BASE({"disable_unet_model_creation": True, "in_channels": config.in_channels, "dtype": dtype})
    out.latent_format = PixelLatent(info.ratio)
    out.sampling_settings = {"beta_schedule": _HOST_SCHEDULES[info.schedule], "linear_start": 1e-4, "linear_end": 2e-2, "timesteps": 1000}
    out.manual_cast_dtype = cast
    return out


def _plain(conds: list[ConditioningEntry] | None) -> bool:
    """Return whether there is one conditioning without any restriction.

    It applies everywhere, always, and tells the network nothing.
    """
    return conds is not None and len(conds) == 1 and not conds[0].get("model_conds") and all(conds[0].get(key) is None for key in _NARROWS)


def share_unconditional_call(
    executor: Callable[..., list[Tensor]],
    model: comfy.model_base.BaseModel,
    conds: list[list[ConditioningEntry] | None],
    x_in: Tensor,
    timestep: Tensor,
    model_options: ModelOptions,
) -> list[Tensor]:
    """Evaluate an unconditional model once for positive and negative.

    A CALC_COND_BATCH wrapper. Both would give the same result, so CFG changes nothing, whatever cfg is, and costs no second call.
    Conditionings that are restricted in area, time or by hooks are evaluated as the host does.
    """
    if len(conds) == 2 and _plain(conds[0]) and _plain(conds[1]):
        out = executor(model, conds[:1], x_in, timestep, model_options)
        return [out[0], out[0].clone()]
    return executor(model, conds, x_in, timestep, model_options)


def patcher_from(name: str, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]) -> comfy.model_patcher.ModelPatcher:
    """Make a MODEL from a state dict and its metadata.

    Raises ValueError where they are not a model that is supported here.
    """
    management = comfy.model_management
    config = read_config(state_dict, metadata)
    info = read_info(name, config, metadata)
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    supported = [torch.float16, torch.bfloat16, torch.float32]
    parameters = sum(v.numel() for v in state_dict.values())
    weight_dtype = comfy.utils.weight_dtype(state_dict)
    dtype = management.unet_dtype(model_params=parameters, supported_dtypes=supported, weight_dtype=weight_dtype)
    cast = management.unet_manual_cast(dtype, load_device, supported)
    operations = comfy.ops.pick_operations(dtype, cast, load_device=load_device)
    network = build_unet(state_dict, metadata, operations=operations, device=offload_device, dtype=dtype, cls=HostAdmUNet)
    network.null_label = info.null_label
    model = AdmModel(_config(config, info, dtype, cast), network, info)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    if info.num_classes is None:
        patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, WRAPPER_KEY, share_unconditional_call)
    return patcher


def load_adm(path: str | os.PathLike[str]) -> comfy.model_patcher.ModelPatcher:
    """Load a MODEL from a safetensors file of the guided-diffusion family.

    Raises ValueError where the file is something else.
    """
    state_dict, metadata = read_safetensors(path)
    if is_text_model(metadata):
        raise ValueError(f"'{os.path.basename(path)}' is a text-to-image model: load it with Load Quickstart Text Model.")
    name = os.path.basename(path)
    try:
        patcher = patcher_from(name, state_dict, metadata)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason if f"'{name}'" in reason else f"'{name}' cannot be loaded: {reason}") from error
    return reloadable(patcher, load_adm, path)


def info_of(model: Model) -> AdmInfo:
    """Return what a MODEL's file says about itself.

    Raises ValueError for a MODEL of another kind.
    """
    info = getattr(getattr(model, "model", None), "equipoise_info", None)
    if info is None:
        kind = type(getattr(model, "model", model)).__name__
        raise ValueError(
            "this node needs a MODEL from Load Unconditional Diffusion or Load Quickstart Text Model, and another kind is connected "
            f"({kind})."
        )
    return info


def empty_latent(model: Model, width: int, height: int, batch_size: int) -> dict[str, Tensor]:
    """Make a LATENT of zeros for a MODEL of this kind.

    Sizes are in pixels (0: the model's own). ``samples``: [batch_size, channels, h, w]. The LATENT has no downscale ratio, because its size
    is already that of the model.
    """
    info = info_of(model)
    shape = (batch_size, info.channels, *latent_size(info, width, height))
    return {"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device(), dtype=intermediate_dtype())}
