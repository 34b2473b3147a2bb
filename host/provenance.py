"""Files that a queued graph names, found in the host's folders, with their SHA-256; and which software made the figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from .feature_sets import size

PIECE = 2**23
NOT_MODELS = ("custom_nodes", "configs")
IGNORED = "not computed"
_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@dataclass(frozen=True)
class NamedFile:
    """A file that a graph names: as it is named there, below which folder of the host it was found, and where that is."""

    name: str
    folder: str
    path: Path


def named_files(values: Iterable[str]) -> list[NamedFile]:
    """Files among the values of nodes: model files by the host's folder keys, folders of classifiers, and pictures in the input folder."""
    found: dict[Path, NamedFile] = {}
    for value in values:
        for file in _files_of(value):
            found.setdefault(file.path, file)
    return list(found.values())


def file_rows(files: Iterable[NamedFile], hashed: bool = True) -> list[tuple[str, str, str, str]]:
    """Rows (file, folder, size, SHA-256). Large files take seconds: with the node's progress, and the host can interrupt."""
    chosen = list(files)
    sizes = [f.path.stat().st_size for f in chosen]
    bar = comfy.utils.ProgressBar(max(1, sum(sizes) // PIECE))
    rows = []
    for file, count in zip(chosen, sizes, strict=True):
        rows.append((file.name, file.folder, size(count), sha256_of(file.path, bar) if hashed else IGNORED))
    return rows


def sha256_of(path: Path, bar: comfy.utils.ProgressBar) -> str:
    """SHA-256 of a file in hexadecimal, read piece by piece. Raises the host's exception where the user interrupts."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            digest.update(piece)
            bar.update(1)
    return digest.hexdigest()


def images_row(name: str, images: Tensor) -> tuple[str, str, str, str]:
    """The same for a batch of images [N, H, W, C]: SHA-256 of its shape and its 8-bit pixels, so that a report can be tied to pictures."""
    pixels = (images[..., :3].detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous()
    digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    n, h, w, _ = pixels.shape
    return f"{name} images", f"{n} of {w} x {h} pixels", size(pixels.numel()), digest.hexdigest()


def software() -> str:
    """Versions of this pack, the host and torch, and the device."""
    found = re.search(r'^version = "([^"]+)"', _PROJECT.read_text(encoding="utf-8"), re.MULTILINE) if _PROJECT.is_file() else None
    device = comfy.model_management.get_torch_device()
    return f"Equipoise {found[1] if found else 'of unknown version'}, {_host()}, torch {torch.__version__}, on {device}."


def _host() -> str:
    try:
        from comfyui_version import __version__
    except ImportError:
        return "ComfyUI of unknown version"
    return f"ComfyUI {__version__}"


def _files_of(value: str) -> list[NamedFile]:
    if "\n" in value or len(value) > 300:
        return []
    for key in folder_paths.folder_names_and_paths:
        if key in NOT_MODELS:
            continue
        path = folder_paths.get_full_path(key, value) if Path(value).suffix else None
        if path is not None:
            return [NamedFile(value, key, Path(path))]
        config = folder_paths.get_full_path(key, f"{value}/config.json") if key == "attribute_classifiers" else None
        if config is not None:
            inside = sorted(p for p in Path(config).parent.iterdir() if p.is_file())
            return [NamedFile(f"{value}/{p.name}", key, p) for p in inside]
    return _picture(value)


def _picture(value: str) -> list[NamedFile]:
    """A picture that a graph loads from the host's input folder."""
    if not Path(value).suffix or Path(value).is_absolute():
        return []
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / value).resolve()
    return [NamedFile(value, "input", path)] if path.is_relative_to(root) and path.is_file() else []
