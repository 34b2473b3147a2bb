"""A small text-to-image model made of the host's own classes: U-Net with cross-attention, CLIP text model, tokeniser.

Only its widths are its own, so that prompts, CFG, LoRA and patches go the way that they go for SD1.5. The file keeps the token rows that
its captions use; all other words have a row of zeros, so they are read as a pause.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...models.files import read_safetensors
from ..core.types import ModelInput
from ..core.versions import reloadable
from .adm_info import AdmInfo, is_text_model
from .adm_model import PixelLatent

BASE_MODEL = "equipoise-portraits-text"
VOCABULARY = 49408
TEXT_PREFIX = "clip_l.transformer."

UNET_KEYS = (
    "in_channels",
    "out_channels",
    "model_channels",
    "num_res_blocks",
    "channel_mult",
    "transformer_depth",
    "transformer_depth_output",
    "transformer_depth_middle",
    "context_dim",
    "num_head_channels",
)
"""What a file states about its U-Net; the rest is the same for all (scale-shift norm, resampling residual blocks)."""
CLIP_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
"""What a file states about its text model; the rest is CLIP ViT-L/14's."""
LARGEST = 4096
"""No whole number in a file's configuration may exceed this."""


def operations(base: type, groups: int) -> type:
    """Return the host's operations with another number of groups in GroupNorm.

    The U-Net's classes ask for 32, which at 32 channels is instance norm: it removes every channel's mean, and colours drift.
    """

    class GroupNorm(base.GroupNorm):
        def __init__(self, num_groups: int, num_channels: int, *args: object, **kwargs: object) -> None:
            super().__init__(groups, num_channels, *args, **kwargs)

    return type("FewerGroups", (base,), {"GroupNorm": GroupNorm})


def unet_config(stated: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Make the arguments of the host's UNetModel.

    The host also reads LoRA key names from them.
    """
    return {
        **{key: stated[key] for key in UNET_KEYS},
        "image_size": 32,
        "num_heads": -1,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "legacy": False,
        "dtype": dtype,
    }


class TextModelConfig(comfy.supported_models_base.BASE):
    """The host's description of this model, as its SD15 is one."""

    unet_extra_config: dict[str, Any] = {}
    sampling_settings = {"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 2e-2, "timesteps": 1000}
    memory_usage_factor = 0.12  # SD1.5 is 1.0 with ten times the channels

    def __init__(self, config: dict[str, Any], ratio: int, cast: torch.dtype | None, ops: type) -> None:
        super().__init__(config)
        self.latent_format = PixelLatent(ratio)
        self.manual_cast_dtype = cast
        self.custom_operations = ops


class TextModel(comfy.model_base.BaseModel):
    """The host's BaseModel with velocity prediction.

    ``equipoise_info`` says what it is and how large its images are.
    """

    def __init__(self, config: TextModelConfig, info: AdmInfo, device: torch.device | None) -> None:
        super().__init__(config, comfy.model_base.ModelType.V_PREDICTION, device=device)
        self.equipoise_info = info

    def extra_conds(self, **kwargs: Any) -> dict[str, ModelInput]:
        """Prepare the conditioning as the host does.

        Raises ValueError if the text was encoded by a CLIP of another width.
        """
        text, width = kwargs.get("cross_attn"), self.model_config.unet_config["context_dim"]
        if text is not None and text.shape[-1] != width:
            raise ValueError(
                f"'{self.equipoise_info.name}' needs conditionings of width {width}, and this one has width {text.shape[-1]}: "
                "encode the prompts with the CLIP of Load Quickstart Text Model."
            )
        return super().extra_conds(**kwargs)


class _Tokenizer(comfy.sd1_clip.SDTokenizer):
    """CLIP's tokeniser; textual inversions have to be as wide as this text model."""

    width = 64

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{**kwargs, "embedding_size": self.width})


def _configuration(name: str, metadata: Mapping[str, str], key: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Read a configuration from the metadata.

    JSON of whole numbers and lists of them. Raises ValueError if it is not.
    """

    def is_whole(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST

    try:
        stated = json.loads(metadata.get(key, "null"))
        if not isinstance(stated, dict) or not all(
            is_whole(stated[k]) or (isinstance(stated[k], list) and len(stated[k]) <= 64 and all(map(is_whole, stated[k]))) for k in wanted
        ):
            raise ValueError
    except (ValueError, KeyError):
        raise ValueError(
            f"'{name}': its metadata '{key}' should be JSON with the whole numbers {', '.join(wanted)}: the file is damaged, so get it "
            "again."
        ) from None
    return {k: stated[k] for k in wanted}


def _whole(name: str, metadata: Mapping[str, str], key: str, lowest: int) -> int:
    try:
        value = int(metadata.get(key, ""))
    except ValueError:
        value = -1
    if not lowest <= value <= LARGEST:
        stated = metadata.get(key)
        raise ValueError(f"'{name}': its metadata '{key}' should be a whole number from {lowest} and is '{stated}': get the file again.")
    return value


def _check(name: str, metadata: Mapping[str, str]) -> None:
    """Raise ValueError where a file is not one of these models, or a newer kind."""
    if not is_text_model(metadata):
        kind = metadata.get("format", "none stated")
        raise ValueError(
            f"'{name}' is not a text model of this pack (format: {kind}): load diffusion models without text with "
            "Load Unconditional Diffusion, and Stable Diffusion checkpoints with Load Checkpoint."
        )
    if metadata.get("format_version") != "1":
        raise ValueError(f"'{name}' has format version {metadata.get('format_version')}, and this Equipoise reads 1: update Equipoise.")
    if (metadata.get("noise_schedule"), metadata.get("prediction")) != ("linear", "v"):
        raise ValueError(
            f"'{name}' must be a velocity model with the linear schedule, and its metadata says something else: get the file again."
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _model(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> comfy.model_patcher.ModelPatcher:
    """Make the MODEL of a file."""
    management = comfy.model_management
    stated = _configuration(name, metadata, "unet", UNET_KEYS)
    ratio, groups = _whole(name, metadata, "pixel_unshuffle", 1), _whole(name, metadata, "norm_groups", 1)
    levels = len(stated["channel_mult"]) if isinstance(stated["channel_mult"], list) else 0
    if stated["in_channels"] != 3 * ratio * ratio or stated["out_channels"] != stated["in_channels"] or not levels:
        raise ValueError(f"'{name}': the channels of its U-Net do not fit pixel_unshuffle={ratio}: get the file again.")
    info = AdmInfo(
        name=name,
        channels=stated["in_channels"],
        ratio=ratio,
        image_size=_whole(name, metadata, "image_size", 1),
        multiple=2 ** (levels - 1) * ratio,
        schedule="linear",
        prediction="v",
        num_classes=None,
        null_label=None,
        class_names=(),
        base_model=metadata.get("base_model", ""),
    )
    weights = _part(tensors, "unet.")
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    supported = [torch.float16, torch.bfloat16, torch.float32]
    dtype = management.unet_dtype(
        model_params=sum(v.numel() for v in weights.values()), supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(weights)
    )
    cast = management.unet_manual_cast(dtype, load_device, supported)
    ops = operations(comfy.ops.pick_operations(dtype, cast, load_device=load_device), groups)
    try:
        model = TextModel(TextModelConfig(unet_config(stated, dtype), ratio, cast, ops), info, offload_device)
        model.diffusion_model.load_state_dict(weights, strict=True)
    except (RuntimeError, IndexError, AssertionError, ZeroDivisionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"'{name}': its U-Net weights do not fit what it says about itself ({reason}): get the file again.") from error
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)


def text_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the state dict of the host's CLIPTextModel from ``clip.`` tensors.

    The stored token rows go into a table of zeros. Raises KeyError if the rows or their numbers are missing, ValueError if they do not fit
    each other.
    """
    out = {f"text_model.{k}": v for k, v in _part(tensors, "clip.").items() if k not in ("token_ids", "token_rows")}
    ids, rows = tensors["clip.token_ids"].long(), tensors["clip.token_rows"]
    if ids.ndim != 1 or rows.ndim != 2 or len(ids) != len(rows) or not len(ids) or ids.min() < 0 or ids.max() >= VOCABULARY:
        raise ValueError("token rows and token numbers do not fit each other")
    table = rows.new_zeros(VOCABULARY, rows.shape[1])
    table[ids] = rows
    out["text_model.embeddings.token_embedding.weight"] = table
    out["text_projection.weight"] = torch.eye(rows.shape[1], dtype=rows.dtype)  # SD1.5 uses the pooled output before it
    return out


def _clip(name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> comfy.sd.CLIP:
    """Make the CLIP of a file."""
    config = _configuration(name, metadata, "clip", CLIP_KEYS)
    tokenizer = type("QuickstartTokenizer", (_Tokenizer,), {"width": config["hidden_size"]})
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    try:
        weights = {TEXT_PREFIX + k: v for k, v in text_weights(tensors).items()}
        clip = comfy.sd.CLIP(
            target,
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            tokenizer_data={"clip_l_tokenizer_class": tokenizer},
            parameters=sum(v.numel() for v in weights.values()),
            model_options={"clip_l_model_config": config},
        )
        missing, unexpected = clip.load_sd(weights, full_model=True)
        wrong = [k for k in missing if not k.endswith("logit_scale")] + list(unexpected)
        if wrong:
            raise ValueError(f"missing or unknown: {', '.join(wrong[:3])}")
    except (RuntimeError, KeyError, ValueError, AssertionError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"'{name}': its text model does not fit what it says about itself ({reason}): get the file again.") from error
    return clip


def _load_model(path: str | os.PathLike[str]) -> comfy.model_patcher.ModelPatcher:
    """Load the MODEL alone.

    For hosts that make a copy for a second device.
    """
    tensors, metadata = read_safetensors(path)
    name = os.path.basename(path)
    _check(name, metadata)
    return _model(name, tensors, metadata)


def load_text_model(path: str | os.PathLike[str]) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP]:
    """Load MODEL and CLIP from a file of this format.

    Raises ValueError if the file is of another kind or damaged.
    Images and latents are those of :class:`.pixel_vae.PixelVae` at ``info_of(model).ratio``.
    """
    tensors, metadata = read_safetensors(path)
    name = os.path.basename(path)
    _check(name, metadata)
    clip = _clip(name, tensors, metadata)
    return reloadable(_model(name, tensors, metadata), _load_model, path), clip
