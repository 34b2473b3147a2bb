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

from ..data.feature_sets import size
from ..labels.classifier import KEY

PIECE = 2**23
NOT_MODELS = ("custom_nodes", "configs")
IGNORED = "not computed"
_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class NamedFile:
    """A file that a graph names: as it is named there, below which folder of the host it was found, and where that is."""

    name: str
    folder: str
    path: Path


def named_files(values: Iterable[tuple[str, str]]) -> list[NamedFile]:
    """Files among the values of nodes, given with a hint (see :func:`..methods.provenance.texts`): model files by the host's folder keys,
    folders of classifiers, and pictures in the input folder.

    Where folders of several kinds hold a file of that name, the hint tells which is meant; if it does not, all are listed.
    """
    found: dict[Path, NamedFile] = {}
    for hint, value in values:
        for file in _files_of(hint, value):
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
    n, h, w, _ = images.shape
    digest = hashlib.sha256(str((n, h, w, 3)).encode())
    for image in images[..., :3]:
        digest.update((image.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous().numpy().tobytes())
    return f"{name} images", f"{n} of {w} x {h} pixels", size(3 * n * h * w), digest.hexdigest()


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


def _files_of(hint: str, value: str) -> list[NamedFile]:
    if "\n" in value or len(value) > 300:
        return []
    keys = [k for k in folder_paths.folder_names_and_paths if k not in NOT_MODELS]
    found = [NamedFile(value, k, Path(p)) for k in keys if Path(value).suffix and (p := folder_paths.get_full_path(k, value))]
    if found:
        return [f for f in found if _word(f.folder) in _word(hint)] or found
    config = folder_paths.get_full_path(KEY, f"{value}/config.json")
    if config is not None:
        return [NamedFile(f"{value}/{p.name}", KEY, p) for p in sorted(Path(config).parent.iterdir()) if p.is_file()]
    return _picture(value)


def _word(text: str) -> str:
    """A folder key or a hint without what does not matter: "equipoise_bias_features" and "EquipoiseLoadBiasFeatures" share a word."""
    return text.lower().replace("equipoise", "").replace("_", "").removesuffix("s")


def _picture(value: str) -> list[NamedFile]:
    """A picture that a graph loads from the host's input folder."""
    if not Path(value).suffix or Path(value).is_absolute():
        return []
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / value).resolve()
    return [NamedFile(value, "input", path)] if path.is_relative_to(root) and path.is_file() else []
