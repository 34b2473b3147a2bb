"""Whether a CLIP encoder holds the projection into the space that CLIP's text and images share.

The host makes the projection as an uninitialised matrix and fills it only if the file has one (zeros where it loads lazily; older versions
put the identity). What stands in uninitialised memory can be the weights of another model, so the numbers alone tell little: the
weight files are traced through the workflow, and the matrix is looked for in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors import safe_open
from torch import Tensor

FOLDERS = ("text_encoders", "clip", "clip_vision", "checkpoints", "diffusion_models", "unet")
"""Folder keys in which a loader's file name is looked for."""
SAME = 0.5
"""Relative distance below which a matrix counts as the file's: LoRA and merges move it a little, other contents by more than 1."""


def is_blank(weight: Tensor) -> bool:
    """Return whether a matrix holds nothing that was trained.

    Numbers that are not finite or absurdly large, zeros, or the identity.
    """
    w = weight.detach().float().cpu()
    if not torch.isfinite(w).all() or float(w.abs().max()) > 1e3 or float(w.abs().max()) < 1e-6:
        return True
    return w.shape[0] == w.shape[1] and torch.allclose(w, torch.eye(len(w)), atol=1e-3)


def files_behind(prompt: Mapping[str, Any] | None, node_id: str | None, input_name: str) -> list[Path]:
    """List the weight files that nodes upstream of an input name.

    As far as they lie in the host's model folders.

    Follows inputs whose name holds "clip" where a node has such, else all its links.
    """
    if not prompt or node_id is None or str(node_id) not in prompt:
        return []
    start = prompt[str(node_id)].get("inputs", {}).get(input_name)
    waiting, seen, paths = [start], set(), []
    while waiting:
        link = waiting.pop()
        if not _is_link(link) or str(link[0]) in seen or str(link[0]) not in prompt:
            continue
        seen.add(str(link[0]))
        inputs = prompt[str(link[0])].get("inputs", {})
        paths += [path for value in inputs.values() if isinstance(value, str) and (path := _weights(value))]
        links = {name: value for name, value in inputs.items() if _is_link(value)}
        waiting += [v for name, v in links.items() if "clip" in name.lower()] or list(links.values())
    return list(dict.fromkeys(paths))


def clip_files(graph: Mapping[str, Any] | None, node_id: str | None) -> dict[str, list[Path]]:
    """Find the weight files behind a node's inputs clip_vision and clip, as "vision" and "clip"."""
    return {"vision": files_behind(graph, node_id, "clip_vision"), "clip": files_behind(graph, node_id, "clip")}


def in_files(weight: Tensor, files: Sequence[Path], endings: Sequence[str]) -> bool | None:
    """Return whether one of the files holds this matrix.

    Or its transpose, under a name with one of the endings. None if it cannot be known.

    It cannot where there are no files, or one is no safetensors file (no others are opened).
    """
    w = weight.detach().float().cpu()
    unread = not files
    for path in files:
        try:
            with safe_open(str(path), framework="pt", device="cpu") as handle:
                for key in handle.keys():  # noqa: SIM118 (not a dict)
                    if key.endswith(tuple(endings)) and _same(w, handle.get_tensor(key)):
                        return True
        except Exception:  # safetensors raises its own type, which is no OSError
            unread = True
    return None if unread else False


def _same(w: Tensor, other: Tensor) -> bool:
    other = other.float()
    return any(o.shape == w.shape and float((w - o).norm()) < SAME * float(o.norm()) for o in (other, other.T) if o.ndim == 2)


def _is_link(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and not isinstance(value[0], (list, dict))


def _weights(value: str) -> Path | None:
    for key in FOLDERS:
        if key in folder_paths.folder_names_and_paths:
            path = folder_paths.get_full_path(key, value)
            if path is not None:
                return Path(path)
    return None
