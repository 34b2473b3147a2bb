"""ADM U-Net: the diffusion network of "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal & Nichol 2021).

Parameter names are those of guided-diffusion, so published checkpoints of that family load unchanged. The forward call and the
``transformer_options`` patches are those of the host's own U-Net, so that one feature hook serves both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import DAMAGE
from .operations import Operations, Placement

REQUIRED = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "input_blocks.1.0.emb_layers.1.weight",
    "middle_block.1.qkv.weight",
    "out.2.weight",
)
"""Weights that tell an ADM U-Net from other networks; all have to be there."""


@dataclass(frozen=True)
class AdmConfig:
    """Shape of an ADM U-Net."""

    in_channels: int
    """Channels of the input."""
    out_channels: int
    """Channels of the output, twice those of the input with a learned sigma."""
    model_channels: int
    """Channels of the first level."""
    channel_mult: tuple[float, ...]
    """Factor of the channels by level; may be a half."""
    num_res_blocks: int
    """Residual blocks of a level."""
    attention: tuple[bool, ...]
    """Whether the blocks of a level carry attention."""
    num_classes: int | None = None
    """Classes of a class-conditional model; None without."""
    scale_shift_norm: bool = True
    """Whether time embeddings scale and shift normalised features."""
    resblock_updown: bool = True
    """Whether residual blocks change the resolution."""
    num_heads: int | None = None
    """Attention heads, if their number is fixed."""
    num_head_channels: int | None = 64
    """Channels of a head, if these are fixed."""
    new_attention_order: bool = False
    """Whether q, k and v are split before heads."""
    norm_groups: int = 32
    """Groups of the normalisation."""

    @property
    def levels(self) -> int:
        """Number of resolution levels."""
        return len(self.channel_mult)

    @property
    def downscale(self) -> int:
        """Ratio between the input's side and the middle block's."""
        return 2 ** (self.levels - 1)

    def width(self, level: int) -> int:
        """Return the number of channels of a level."""
        return int(self.model_channels * self.channel_mult[level])

    @property
    def learned_sigma(self) -> bool:
        """Whether the second half of the output is a variance.

        Samplers do not use it.
        """
        return self.out_channels == 2 * self.in_channels

    def heads(self, channels: int) -> int:
        """Return the number of attention heads at a width.

        Raises ValueError if the width does not divide.
        """
        if self.num_heads:
            heads = self.num_heads
        elif self.num_head_channels:
            heads = channels // self.num_head_channels
        else:
            heads = 1
        if heads < 1 or channels % heads:
            raise ValueError(
                f"attention at {channels} channels cannot be split into {self.num_heads or 'heads'} "
                f"(num_head_channels={self.num_head_channels}): write num_heads or num_head_channels into the file's metadata."
            )
        return heads


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Embed timesteps [B] as sinusoids, cosines first: float32 [B, dim].

    Timesteps may be fractional, 0..999.
    """
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    args = timesteps.float()[:, None] * freqs[None]
    emb = torch.cat([torch.cos(args), torch.sin(args)], dim=-1)
    return F.pad(emb, (0, 1)) if dim % 2 else emb


class Downsample(nn.Module):
    """Halve height and width: strided convolution, or average pooling without parameters."""

    def __init__(self, channels: int, conv: bool, ops: Operations, **kw: Placement) -> None:
        super().__init__()
        self.op = ops.Conv2d(channels, channels, 3, stride=2, padding=1, **kw) if conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the height and width of x [B, C, H, W]."""
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width (nearest), then a convolution where ``conv``."""

    def __init__(self, channels: int, conv: bool, ops: Operations, **kw: Placement) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1, **kw) if conv else None

    def forward(self, x: Tensor) -> Tensor:
        """Double the height and width of x [B, C, H, W]."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class ResBlock(nn.Module):
    """Residual block with time embedding, optionally resampling (``resample`` is "up", "down" or None)."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        out_channels: int,
        scale_shift: bool,
        resample: str | None,
        groups: int,
        ops: Operations,
        **kw: Placement,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            ops.GroupNorm(groups, channels, **kw), nn.SiLU(), ops.Conv2d(channels, out_channels, 3, padding=1, **kw)
        )
        self.resample: nn.Module | None = None
        if resample == "up":
            self.resample = Upsample(channels, False, ops)
        elif resample == "down":
            self.resample = Downsample(channels, False, ops)
        self.emb_layers = nn.Sequential(nn.SiLU(), ops.Linear(emb_channels, (2 if scale_shift else 1) * out_channels, **kw))
        self.out_layers = nn.Sequential(
            ops.GroupNorm(groups, out_channels, **kw),
            nn.SiLU(),
            nn.Identity(),  # dropout stands here in guided-diffusion; kept so that the convolution is layer 3
            ops.Conv2d(out_channels, out_channels, 3, padding=1, **kw),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else ops.Conv2d(channels, out_channels, 1, **kw)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Apply the block to x [B, C, H, W] with embeddings emb [B, D]."""
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        emb_out = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, rest = self.out_layers[0], self.out_layers[1:]
        if self.scale_shift:
            scale, shift = emb_out.chunk(2, dim=1)
            h = rest(norm(h) * (1 + scale) + shift)
        else:
            h = rest(norm(h + emb_out))
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over positions. ``new_order`` False: channels are [head, qkv, c] (legacy); True: [qkv, head, c]."""

    def __init__(self, channels: int, heads: int, new_order: bool, groups: int, ops: Operations, **kw: Placement) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = ops.GroupNorm(groups, channels, **kw)
        self.qkv = ops.Conv1d(channels, 3 * channels, 1, **kw)
        self.proj_out = ops.Conv1d(channels, channels, 1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        """Apply self-attention over the positions of x [B, C, H, W]."""
        b, c, height, width = x.shape
        flat = x.reshape(b, c, height * width)
        qkv = self.qkv(self.norm(flat))
        d = c // self.heads
        if self.new_order:
            q, k, v = qkv.reshape(b, 3, self.heads, d, -1).unbind(1)
        else:
            q, k, v = qkv.reshape(b, self.heads, 3, d, -1).unbind(2)
        out = F.scaled_dot_product_attention(q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3))
        return (flat + self.proj_out(out.transpose(2, 3).reshape(b, c, -1))).reshape(b, c, height, width)


class Stage(nn.Sequential):
    """One entry of input_blocks, middle_block or output_blocks.

    Its children run in turn, with the embedding if they take it.
    """

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Apply the layers in order; residual blocks also get ``emb``."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def _add_control(h: Tensor, control: Mapping[str, list[Tensor | None]] | None, name: str) -> Tensor:
    """Add the next residual of a ControlNet, as the host does.

    Lists are consumed from the end.
    """
    if control and control.get(name):
        residual = control[name].pop()
        if residual is not None:
            h = h + residual
    return h


class AdmUNet(nn.Module):
    """The network. Build it with :func:`build_unet`."""

    def __init__(
        self, config: AdmConfig, operations: Operations = nn, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        kw: dict[str, Placement] = {"device": device, "dtype": dtype}
        c, ops = config, operations
        self.config = config
        self.model_channels = mc = c.model_channels
        self.num_classes = c.num_classes
        self.dtype = dtype or torch.float32
        emb = 4 * mc
        self.time_embed = nn.Sequential(ops.Linear(mc, emb, **kw), nn.SiLU(), ops.Linear(emb, emb, **kw))
        if c.num_classes is not None:
            self.label_emb = ops.Embedding(c.num_classes, emb, **kw)

        def res(cin: int, cout: int, resample: str | None = None) -> ResBlock:
            return ResBlock(cin, emb, cout, c.scale_shift_norm, resample, c.norm_groups, ops, **kw)

        def attn(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, c.heads(channels), c.new_attention_order, c.norm_groups, ops, **kw)

        ch = c.width(0)
        self.input_blocks = nn.ModuleList([Stage(ops.Conv2d(c.in_channels, ch, 3, padding=1, **kw))])
        skips = [ch]
        for level in range(c.levels):
            for _ in range(c.num_res_blocks):
                layers: list[nn.Module] = [res(ch, c.width(level))]
                ch = c.width(level)
                if c.attention[level]:
                    layers.append(attn(ch))
                self.input_blocks.append(Stage(*layers))
                skips.append(ch)
            if level != c.levels - 1:
                self.input_blocks.append(Stage(res(ch, ch, "down") if c.resblock_updown else Downsample(ch, True, ops, **kw)))
                skips.append(ch)
        self.middle_block = Stage(res(ch, ch), attn(ch), res(ch, ch))
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(c.levels)):
            for i in range(c.num_res_blocks + 1):
                layers = [res(ch + skips.pop(), c.width(level))]
                ch = c.width(level)
                if c.attention[level]:
                    layers.append(attn(ch))
                if level and i == c.num_res_blocks:
                    layers.append(res(ch, ch, "up") if c.resblock_updown else Upsample(ch, True, ops, **kw))
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(
            ops.GroupNorm(c.norm_groups, ch, **kw), nn.SiLU(), ops.Conv2d(ch, c.out_channels, 3, padding=1, **kw)
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **_: object,
    ) -> Tensor:
        """Predict the noise, or the velocity where the weights were trained for it.

        x [B, C, H, W]; timesteps [B] in 0..999; y [B] class indices or [B, 4 * model_channels] ready embeddings (class-conditional models
        only); ``context`` is accepted for the host's call and not used. ``transformer_options["patches"]`` may hold
        ``input_block_patch`` (h, options) -> h, ``middle_block_after_patch`` ({"h": ...}) -> {"h": ...} and
        ``output_block_patch`` (h, skip, options) -> (h, skip), each a list, called in order. Returns [B, out_channels, H, W].
        Raises ValueError where y is missing or not expected, or H or W is not a multiple of the downscale ratio.
        """
        if (y is not None) != (self.num_classes is not None):
            raise ValueError(
                "this diffusion model is class-conditional, and it got no class label: connect Class Label."
                if y is None
                else "this diffusion model is unconditional, and it got a class label: disconnect Class Label."
            )
        ratio = self.config.downscale
        if x.shape[-1] % ratio or x.shape[-2] % ratio:
            raise ValueError(
                f"this diffusion model needs a latent whose height and width are multiples of {ratio}, and got {x.shape[-2]} x "
                f"{x.shape[-1]}: "
                "change the size of the latent."
            )
        options = transformer_options if transformer_options is not None else {}
        patches = options.get("patches", {})
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        if y is not None:
            emb = emb + (self.label_emb(y.long().reshape(-1)) if y.ndim < 2 or y.shape[-1] == 1 else y).to(emb.dtype)
        h, skips = x, []
        for i, block in enumerate(self.input_blocks):
            options["block"] = ("input", i)
            h = _add_control(block(h, emb), control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
        options["block"] = ("middle", 0)
        h = _add_control(self.middle_block(h, emb), control, "middle")
        for patch in patches.get("middle_block_after_patch", ()):
            args = {"h": h, "x": x, "emb": emb, "context": context, "y": y, "timesteps": timesteps, "transformer_options": options}
            h = patch(args)["h"]
        for i, block in enumerate(self.output_blocks):
            options["block"] = ("output", i)
            skip = _add_control(skips.pop(), control, "output")
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            h = block(h if skip is None else torch.cat([h, skip], dim=1), emb)
        return self.out(h)


def _indices(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """Count the numbered children below a prefix."""
    numbers = {int(m.group(1)) for k in state_dict if (m := re.match(rf"{prefix}\.(\d+)\.", k))}
    return max(numbers) + 1 if numbers else 0


def _positive(metadata: Mapping[str, str], key: str) -> int | None:
    """Read a whole number from the metadata.

    None if it is absent, 0 or -1 (guided-diffusion's word for "not used").
    """
    try:
        value = int(metadata.get(key, -1))
    except ValueError:
        raise ValueError(f"the metadata '{key}' should be a whole number and is '{metadata[key]}': correct the file.") from None
    return value if value > 0 else None


def _flag(metadata: Mapping[str, str], key: str) -> bool:
    """Read a truth value from the metadata; False if it is absent."""
    text = str(metadata.get(key, "false")).lower()
    if text not in ("true", "false"):
        raise ValueError(f"the metadata '{key}' should be 'true' or 'false' and is '{text}': correct the file.")
    return text == "true"


def read_config(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> AdmConfig:
    """Read an ADM U-Net's configuration from its weights and its metadata.

    metadata (string values) holds what weights cannot tell: ``num_head_channels`` or ``num_heads`` (default: 64-channel heads),
    ``use_new_attention_order`` ("true"/"false", default legacy), ``norm_groups`` (groups of every normalisation, default 32 as in
    guided-diffusion; with as many groups as channels a narrow network cannot see the mean of a channel). Raises ValueError where the
    weights are not those of an ADM U-Net.
    """
    meta = dict(metadata or {})
    for key in REQUIRED:
        if key not in state_dict:
            raise ValueError(
                f"this is not an ADM (guided-diffusion) U-Net, because the weight '{key}' is missing. Use a checkpoint of that family that "
                "was converted with 'equipoise convert IN.pt OUT.safetensors'. Load Stable Diffusion checkpoints with Load Checkpoint."
            )
    model_channels = state_dict["time_embed.0.weight"].shape[1]
    levels, num_res_blocks, resblock_updown = _count_blocks(state_dict)
    widths_out, attention = _read_levels(state_dict, levels, num_res_blocks)
    mults = [width // model_channels if width % model_channels == 0 else width / model_channels for width in widths_out]
    widths = [int(model_channels * m) for m in mults]
    heads, head_channels = _positive(meta, "num_heads"), _positive(meta, "num_head_channels")
    groups = _positive(meta, "norm_groups") or 32
    if any(width % groups for width in widths):
        raise ValueError(f"the widths {widths} do not divide into {groups} groups: correct 'norm_groups' in the file's metadata.")
    label = state_dict.get("label_emb.weight")
    return AdmConfig(
        in_channels=state_dict["input_blocks.0.0.weight"].shape[1],
        out_channels=state_dict["out.2.weight"].shape[0],
        model_channels=model_channels,
        channel_mult=tuple(mults),
        num_res_blocks=num_res_blocks,
        attention=tuple(attention),
        num_classes=None if label is None else label.shape[0],
        scale_shift_norm=state_dict["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
        resblock_updown=resblock_updown,
        num_heads=None if head_channels else heads,
        num_head_channels=head_channels or (None if heads else 64),
        new_attention_order=_flag(meta, "use_new_attention_order"),
        norm_groups=groups,
    )


def _count_blocks(state_dict: Mapping[str, Tensor]) -> tuple[int, int, bool]:
    """Count levels and residual blocks of a level, and tell whether residual blocks change the resolution.

    Raises ValueError where the blocks do not form levels.
    """
    n_in, n_out = _indices(state_dict, "input_blocks"), _indices(state_dict, "output_blocks")
    first_up, resblock_updown = n_out - 1, False
    for i in range(n_out):
        kind = _up_layer(state_dict, i)
        if kind is not None:
            first_up, resblock_updown = i, kind == "res"
            break
    per_level = first_up + 1  # output blocks of a level: its residual blocks and one more
    levels = n_out // per_level if per_level else 0
    if first_up < 1 or levels * per_level != n_out or n_in != levels * per_level:
        raise ValueError(
            f"this ADM U-Net is not supported, because its {n_in} input blocks and {n_out} output blocks do not form levels: choose "
            "another file."
        )
    return levels, first_up, resblock_updown


def _up_layer(state_dict: Mapping[str, Tensor], i: int) -> str | None:
    """Return how output block i doubles the resolution: "res", "conv" or not at all (None)."""
    for j in (1, 2):
        if f"output_blocks.{i}.{j}.in_layers.0.weight" in state_dict:
            return "res"
        if f"output_blocks.{i}.{j}.conv.weight" in state_dict:
            return "conv"
    return None


def _read_levels(state_dict: Mapping[str, Tensor], levels: int, num_res_blocks: int) -> tuple[list[int], list[bool]]:
    """Return the width of every level, and whether it has attention.

    Raises ValueError where a level's weights are missing.
    """
    widths, attention = [], []
    for level in range(levels):
        i = 1 + level * (num_res_blocks + 1)
        last = f"input_blocks.{i}.0.out_layers.3.weight"
        if last not in state_dict:
            raise ValueError(f"this ADM U-Net is not complete, because the weight '{last}' is missing: convert or download the file again.")
        widths.append(state_dict[last].shape[0])
        attention.append(f"input_blocks.{i}.1.qkv.weight" in state_dict)
    return widths, attention


def build_unet(
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    operations: Operations = nn,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    cls: type[AdmUNet] = AdmUNet,
) -> AdmUNet:
    """Build the network that a state dict belongs to and load it strictly.

    ``operations`` supplies Linear, Conv2d, GroupNorm, ... (the host passes its casting ones), ``cls`` a subclass. ``dtype`` defaults to
    float32. Raises ValueError where the weights are not an ADM U-Net's or do not fit the configuration read off them.
    """
    try:
        config = read_config(state_dict, metadata)
        net = cls(config, operations=operations, device=device, dtype=dtype)
        net.load_state_dict(dict(state_dict), strict=True)
    except ValueError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:400].rstrip(".")
        raise ValueError(f"the weights do not fit the ADM U-Net that they describe ({reason}): convert it again.") from error
    return net.eval().requires_grad_(False)
