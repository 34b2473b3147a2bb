"""``equipoise neuron-path``: find neuron paths of images in a ``transformers`` ViT classifier, without a host."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..methods.neuron_path.path_settings import NODES, OBJECTIVES, SEARCHES, PathSettings
from ..methods.neuron_path.search import FoundPaths, find_paths
from ..models.files import read_safetensors, write_text
from ..models.neuron_adapters import canonical, supported_activation
from ..models.neuron_vit import NeuronVit
from .console import progress_bar

DEFAULT = PathSettings()
SHAPE = ("num_hidden_layers", "num_attention_heads", "patch_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a ViT classifier of transformers, in a folder")
    parser.add_argument("--images", type=Path, required=True, metavar="FILE", help="safetensors with 'images' [B, 3, H, W], normalised")
    parser.add_argument("--targets", required=True, help="class numbers, one for each image: 0,3,...")
    parser.add_argument("--search", choices=SEARCHES, default=DEFAULT.search, help="which score candidates get (default %(default)s)")
    parser.add_argument("--nodes", choices=NODES, default=DEFAULT.nodes, help="rule of the integral (default %(default)s)")
    parser.add_argument("--objective", choices=OBJECTIVES, default=DEFAULT.objective, help="output that is explained (default %(default)s)")
    parser.add_argument("--top-k", type=int, default=DEFAULT.top_k, metavar="K", help="neurons per layer (default %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--memory-mb", type=int, default=DEFAULT.memory_mb, help="for what a pass keeps for its gradient")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Find neuron paths and write them as JSON."""
    settings = PathSettings(args.search, args.nodes, args.objective, args.top_k, memory_mb=args.memory_mb)
    net = vit_folder(args.model, getattr(torch, args.dtype))
    images = stored_images(args.images)
    targets = class_numbers(args.targets)
    started = time.monotonic()
    paths = find_paths(net, images, targets, settings, progress_bar("locating neuron paths"))
    record = as_record(paths, settings, net, time.monotonic() - started)
    write_text(args.json, json.dumps(record, indent=1) + "\n")
    print(f"{len(images)} path(s) of {net.depth} layers in {record['seconds']:.1f} s")
    print(f"wrote {args.json}")
    return 0


def as_record(paths: FoundPaths, settings: PathSettings, net: NeuronVit, seconds: float) -> dict[str, Any]:
    """Return the record that is written.

    ``paths`` (images x layers, x neurons if top_k is above 1), scores and settings.
    """
    return {
        "paths": (paths.path[:, :, 0] if settings.top_k == 1 else paths.path).tolist(),
        "joint_scores": paths.joint.tolist(),
        "additive": paths.additive.tolist(),
        "objective_values": paths.objective.tolist(),
        "activations": (paths.activation[:, :, 0] if settings.top_k == 1 else paths.activation).tolist(),
        "settings": {k: getattr(settings, k) for k in ("search", "nodes", "objective", "top_k")},
        "dtype": str(net.dtype).removeprefix("torch."),
        "fingerprint": net.fingerprint(),
        "seconds": round(seconds, 3),
    }


def vit_folder(folder: Path, dtype: torch.dtype) -> NeuronVit:
    """Load a ViT classifier from a folder, by its config.json and weights alone.

    Raises ValueError for anything else.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        missing = [k for k in SHAPE if not isinstance(config.get(k), int)]
    except FileNotFoundError:
        raise ValueError(f"'{folder}' has no config.json: choose a folder written by save_pretrained.") from None
    except (ValueError, AttributeError):
        raise ValueError(f"config.json in '{folder}' is not readable JSON: write the folder again.") from None
    kind = config.get("model_type", "vit")
    if kind != "vit" or missing:
        lacking = f" without {missing[0]}" if missing else ""
        raise ValueError(f"'{folder}' is a '{kind}'{lacking}; expected a ViT classifier of transformers.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"'{folder}' has no .safetensors weights, and other formats are not loaded: convert it first.")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_safetensors(file)[0]
    if "classifier.weight" not in state:
        raise ValueError(f"'{folder}' has no classifier head (classifier.weight): choose a model fine-tuned for image classification.")
    names = config.get("id2label") or {}
    labels = tuple(str(names.get(str(i), i)) for i in range(len(state["classifier.weight"])))
    activation = supported_activation(config.get("hidden_act", "gelu"))
    shape = (config["num_hidden_layers"], config["num_attention_heads"], activation, float(config.get("layer_norm_eps", 1e-12)))
    named = {"name": folder.name, "family": "transformers vit"}
    return NeuronVit(canonical(state, dtype), *shape, config["patch_size"], labels, lambda x: x, **named)


def stored_images(path: Path) -> Tensor:
    """Read the tensor ``images`` of a safetensors file.

    Raises ValueError if it is missing or has another shape.
    """
    tensors, _ = read_safetensors(path)
    images = tensors.get("images")
    if images is None or images.ndim != 4 or images.shape[1] != 3:
        met = f"'images' of shape {list(images.shape)}" if images is not None else f"tensors {', '.join(tensors) or 'none'}"
        raise ValueError(f"'{path.name}' holds {met}; expected a tensor 'images' [B, 3, H, W], already normalised.")
    return images


def class_numbers(text: str) -> Tensor:
    """Parse "0,3,..." to int64 [B]. Raises ValueError for anything else."""
    try:
        return torch.tensor([int(part) for part in text.split(",")])
    except ValueError:
        raise ValueError(f"--targets are class numbers separated by commas, one for each image, not '{text}'.") from None
