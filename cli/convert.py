"""``convert IN.pt OUT.safetensors``: take the tensors out of a pickled checkpoint, without running its code."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models.adm_unet import REQUIRED, AdmConfig, build_unet, read_config
from ..models.files import write_safetensors

AVERAGED = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema")
PLAIN = ("state_dict", "model_state_dict", "model", "module", "net", "network", "unet", "params", "weights")
WRAPPERS = ("module.", "_orig_mod.")
"""Put before every name by DistributedDataParallel and torch.compile, and always taken off."""
HOLDERS = ("model.", "net.", "unet.", "diffusion_model.", "ema_model.")
"""Attribute names under which trainers keep their network; taken off where an ADM U-Net comes to light."""


@dataclass(frozen=True)
class Converted:
    """Hold the result of a conversion."""

    tensors: dict[str, Tensor]
    """Tensors by name, without the prefix."""
    metadata: dict[str, str]
    """Metadata that the user stated."""
    nesting: tuple[str, ...]
    """Keys that lead to the weights in the checkpoint."""
    prefix: str
    """Prefix that was removed from all names."""
    dropped: tuple[str, ...]
    """Entries that are not tensors and were left out."""
    adm: AdmConfig | None
    """Configuration of an ADM U-Net; None for other networks."""

    def describe(self) -> list[str]:
        """Describe the conversion in lines."""
        count = sum(t.numel() for t in self.tensors.values())
        kinds = sorted({str(t.dtype).removeprefix("torch.") for t in self.tensors.values()})
        lines = [f"{len(self.tensors)} tensors, {count:,} numbers, {', '.join(kinds)}."]
        if self.nesting:
            lines.append(f"The weights were taken from '{' / '.join(self.nesting)}' in the checkpoint.")
        if self.prefix:
            lines.append(f"The prefix '{self.prefix}' was taken off their names.")
        if self.dropped:
            more = ", ..." if len(self.dropped) > 8 else ""
            lines.append(f"Left out, because they are not tensors: {', '.join(self.dropped[:8])}{more}.")
        if self.adm is None:
            return [*lines, "It is not an ADM (guided-diffusion) U-Net, so nothing more was checked."]
        return [*lines, *self._describe_adm(self.adm)]

    def _describe_adm(self, c: AdmConfig) -> list[str]:
        attention = [f"1/{2**level}" for level, has in enumerate(c.attention) if has] or ["no level but the middle"]
        if c.num_heads:
            heads = f"{c.num_heads} heads"
        else:
            stated = "" if "num_head_channels" in self.metadata else " (assumed)"
            heads = f"{c.num_head_channels}-channel heads{stated}"
        order = "new" if c.new_attention_order else "legacy"
        stated = "" if "use_new_attention_order" in self.metadata else " (assumed)"
        return [
            f"ADM U-Net: {c.in_channels} channels in, {c.out_channels} out ({'learned' if c.learned_sigma else 'fixed'} sigma), "
            f"{'unconditional' if c.num_classes is None else f'{c.num_classes} classes'}.",
            f"Width {c.model_channels} x {', '.join(f'{m:g}' for m in c.channel_mult)}; {c.num_res_blocks} residual block(s) a level; "
            f"{'residual' if c.resblock_updown else 'convolution'} up/down; "
            f"{'scale-shift' if c.scale_shift_norm else 'additive'} time embedding.",
            f"Attention at {', '.join(attention)} of the side, {heads}, {order} head order{stated}.",
            "What weights cannot tell is stated with --metadata: num_head_channels or num_heads, use_new_attention_order, noise_schedule, "
            "prediction, image_size, null_label, class_names.",
        ]


def load_checkpoint(path: Path) -> Any:
    """Load a checkpoint on the CPU.

    Raises ValueError if it is damaged, or holds more than tensors and plain containers.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file '{path}'.") from None
    except OSError:
        raise
    except Exception as error:  # what damaged files raise there has no common type
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error).upper():
            raise ValueError(
                f"'{path.name}' holds objects besides tensors, and a pickle that does can run code, so it was not opened: "
                "get the weights alone (a state dict, or safetensors) from where it comes from."
            ) from error
        raise ValueError(f"'{path.name}' is not a PyTorch checkpoint, or is cut short: copy or download it again.") from error


def find_weights(checkpoint: Any) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    """Find the mapping that holds the weights, and the keys that lead to it.

    An averaged (EMA) copy is preferred.

    Raises ValueError without a mapping with tensors.
    """
    level, path = checkpoint, []
    while isinstance(level, Mapping):
        inner = next((k for k in (*AVERAGED, *PLAIN) if isinstance(level.get(k), Mapping) and level[k]), None)
        if inner is None:
            break
        level, path = level[inner], [*path, inner]
    if not isinstance(level, Mapping) or not any(isinstance(v, Tensor) for v in level.values()):
        keys = f" (its keys: {', '.join(str(k) for k in list(level)[:8])})" if isinstance(level, Mapping) and level else ""
        raise ValueError(
            f"no weights were found in the checkpoint{keys}: expected a state dict, or one below 'ema', 'state_dict' or 'model'."
        )
    return level, tuple(path)


def find_prefix(names: list[str]) -> str:
    """Find the prefix that wrappers and trainers put before every name; "" without one."""
    prefix = ""
    more: str | None = ""
    while more is not None:
        prefix += more
        more = next((p for p in WRAPPERS if all(n.startswith(prefix + p) for n in names)), None)
    for holder in HOLDERS:
        if all(n.startswith(prefix + holder) for n in names) and all(prefix + holder + key in names for key in REQUIRED):
            return prefix + holder
    return prefix


def convert(checkpoint: Any, metadata: Mapping[str, str] | None = None) -> Converted:
    """Take the tensors out of a checkpoint's content.

    They are checked if they are an ADM U-Net.

    Raises ValueError if there are no weights, a tensor cannot be stored, or an ADM U-Net does not fit its own configuration.
    """
    weights, nesting = find_weights(checkpoint)
    named = {str(k): v for k, v in weights.items() if isinstance(v, Tensor)}
    dropped = tuple(str(k) for k, v in weights.items() if not isinstance(v, Tensor))
    prefix = find_prefix(list(named))
    tensors = {}
    for name, value in named.items():
        if value.layout != torch.strided or value.is_quantized:
            raise ValueError(
                f"the tensor '{name}' is sparse or quantised and cannot be stored as safetensors: convert the model to dense weights."
            )
        tensors[name[len(prefix) :]] = value.detach().clone()  # cloned: tensors of a checkpoint may share memory
    stated = dict(metadata or {})
    adm = None
    if all(key in tensors for key in REQUIRED):
        adm = read_config(tensors, stated)
        on_meta = {k: v.to("meta") for k, v in tensors.items()}
        build_unet(on_meta, stated, device=torch.device("meta"))  # every weight is there, none is left over, every shape fits
    return Converted(tensors, stated, nesting, prefix, dropped, adm)


def parse_metadata(pairs: list[str]) -> dict[str, str]:
    """Parse "key=value" texts to a mapping.

    Raises ValueError for a text of another form or a repeated key.
    """
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"--metadata expects key=value and met '{pair}'.")
        if key in metadata:
            raise ValueError(f"--metadata states '{key}' twice.")
        metadata[key] = value.strip()
    return metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("source", metavar="IN.pt", type=Path, help="pickled checkpoint; only tensors are read from it")
    parser.add_argument("target", metavar="OUT.safetensors", type=Path, help="file to write")
    parser.add_argument(
        "--metadata",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="put into the file's header, for example num_head_channels=64; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Convert a file and describe the result."""
    metadata = parse_metadata(args.metadata)
    if args.source.suffix == ".safetensors":
        raise ValueError(f"'{args.source.name}' is already a safetensors file.")
    if args.target.suffix != ".safetensors":
        raise ValueError(f"the file to write should end in .safetensors and is '{args.target.name}'.")
    converted = convert(load_checkpoint(args.source), metadata)
    write_safetensors(args.target, converted.tensors, {**metadata, "converted_from": args.source.name})
    print(f"Wrote {args.target} ({args.target.stat().st_size / 1e6:.1f} MB).")
    print("\n".join(converted.describe()))
    return 0
