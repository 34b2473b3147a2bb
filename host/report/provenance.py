"""Find the files that a queued graph names, with their SHA-256, and the versions of the software."""

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

from ..data.feature_sets import size
from ..labels.classifier import KEY

PIECE = 2**23
NOT_MODELS = ("custom_nodes", "configs")
IGNORED = "not computed"
_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class NamedFile:
    """A file that a queued graph names."""

    name: str
    """Name in the graph."""

    folder: str
    """Folder of the host that holds the file."""

    path: Path
    """Path on disk."""


def named_files(values: Iterable[tuple[str, str]]) -> list[NamedFile]:
    """Find model files, folders of classifiers and input pictures among the values of nodes.

    Each value has a hint (see ``provenance.texts`` in methods). If several folders hold a file of that name, the hint selects one. If it
    does not, all are listed.
    """
    files: dict[Path, NamedFile] = {}
    for hint, value in values:
        for file in _files_of(hint, value):
            files.setdefault(file.path, file)
    return list(files.values())


def file_rows(files: Iterable[NamedFile], hashed: bool = True) -> list[tuple[str, str, str, str]]:
    """List rows of file, folder, size and SHA-256.

    Large files take seconds, so the host can interrupt.
    """
    chosen = list(files)
    sizes = [f.path.stat().st_size for f in chosen]
    bar = comfy.utils.ProgressBar(max(1, sum(sizes) // PIECE))
    rows = []
    for file, count in zip(chosen, sizes, strict=True):
        rows.append((file.name, file.folder, size(count), sha256_of(file.path, bar) if hashed else IGNORED))
    return rows


def sha256_of(path: Path, bar: comfy.utils.ProgressBar) -> str:
    """Compute the SHA-256 of a file in hexadecimal.

    Raises the host's exception if the user interrupts.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            digest.update(piece)
            bar.update(1)
    return digest.hexdigest()


def images_row(name: str, images: Tensor) -> tuple[str, str, str, str]:
    """Describe a batch of images [N, H, W, C] as a row.

    Its SHA-256 covers shape and 8-bit pixels.
    """
    n, h, w, _ = images.shape
    digest = hashlib.sha256(str((n, h, w, 3)).encode())
    for image in images[..., :3]:
        digest.update((image.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous().numpy().tobytes())
    return f"{name} images", f"{n} of {w} x {h} pixels", size(3 * n * h * w), digest.hexdigest()


def software() -> str:
    """Describe the versions of this pack, the host and torch, and the device."""
    version = re.search(r'^version = "([^"]+)"', _PROJECT.read_text(encoding="utf-8"), re.MULTILINE) if _PROJECT.is_file() else None
    device = comfy.model_management.get_torch_device()
    return f"Equipoise {version[1] if version else 'of unknown version'}, {_host()}, torch {torch.__version__}, on {device}."


def _host() -> str:
    try:
        from comfyui_version import __version__
    except ImportError:
        return "ComfyUI of unknown version"
    return f"ComfyUI {__version__}"


def _files_of(hint: str, value: str) -> list[NamedFile]:
    if "\n" in value or len(value) > 300:
        return []
    keys = [k for k in folder_paths.folder_names_and_paths if k not in NOT_MODELS]
    named = [NamedFile(value, k, Path(p)) for k in keys if Path(value).suffix and (p := folder_paths.get_full_path(k, value))]
    if named:
        return [f for f in named if _word(f.folder) in _word(hint)] or named
    config = folder_paths.get_full_path(KEY, f"{value}/config.json")
    if config is not None:
        return [NamedFile(f"{value}/{p.name}", KEY, p) for p in sorted(Path(config).parent.iterdir()) if p.is_file()]
    return _picture(value)


def _word(text: str) -> str:
    """Remove what does not matter from a folder key or a hint.

    "equipoise_bias_features" and "EquipoiseLoadBiasFeatures" then share a word.
    """
    return text.lower().replace("equipoise", "").replace("_", "").removesuffix("s")


def _picture(value: str) -> list[NamedFile]:
    """Return a picture that a graph loads from the host's input folder."""
    if not Path(value).suffix or Path(value).is_absolute():
        return []
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / value).resolve()
    return [NamedFile(value, "input", path)] if path.is_relative_to(root) and path.is_file() else []
