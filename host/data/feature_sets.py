"""Find feature sets and pictures by names, never paths, below the host's output and input folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import folder_paths
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...methods.data.feature_set import INDEX
from ...models.files import stays_below
from ..core.files import check_file_name, storable

FEATURES_PATH = "output/equipoise/features"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def features_root() -> Path:
    """Return the folder that holds the feature sets; it need not exist yet."""
    return Path(folder_paths.get_output_directory()) / "equipoise" / "features"


def set_folder(name: str) -> Path:
    """Return the folder of a set.

    Raises ValueError for a path, or a name that not every system can store.
    """
    name = name.strip()
    check_file_name(name, "a feature set", FEATURES_PATH)
    return features_root() / name


def set_names() -> list[str]:
    """List the names of all feature sets."""
    root = features_root()
    return sorted(p.name for p in root.iterdir() if (p / INDEX).is_file() and storable(p.name)) if root.is_dir() else []


def set_fingerprint(name: str) -> str:
    """Return a text that changes with a set.

    Modification time (ns) and size of its index.
    """
    try:
        stat = os.stat(set_folder(name) / INDEX)
    except (OSError, ValueError):
        return f"{name}: missing"
    return f"{name}|{stat.st_mtime_ns}|{stat.st_size}"


def picture_files(folder: str) -> tuple[Path, list[str]]:
    """List the pictures in and below a folder of the host's input folder.

    Returns the folder, and relative names with forward slashes, in order.

    Raises ValueError for a path that leads elsewhere, and if there are no pictures.
    """
    text = folder.strip()
    parts = PurePosixPath(text.replace("\\", "/")).parts
    if not stays_below("/".join(parts)):
        raise ValueError(
            f"'{folder[:60]}' is not a folder below ComfyUI's input folder: write its name there, such as 'portraits' or 'data/faces'."
        )
    path = Path(folder_paths.get_input_directory()).joinpath(*parts)
    if not path.is_dir():
        raise ValueError(f"there is no folder '{text}' in ComfyUI's input folder: copy the pictures there, or correct the name.")
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not files:
        raise ValueError(f"the folder '{text}' holds no pictures ({', '.join(PICTURES)}): put some into it, or choose another one.")
    return path, files


def read_picture(path: Path) -> Tensor:
    """Read a picture: float32 [H, W, 3] in 0..1, turned as its EXIF data say.

    Raises ValueError if it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            turned = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture '{path.name}' cannot be read ({error}): remove it from the folder, or replace it.") from error
    return torch.from_numpy(np.array(turned)).float() / 255


def write_picture(picture: Tensor, path: Path) -> None:
    """Write a picture [H, W, 3] in 0..1, under a temporary name first.

    In the format that the name's ending says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(pixels).save(partial, format=Image.registered_extensions()[path.suffix.lower()], quality=95)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_disk(needed: float, what: str) -> str:
    """Say in a line how much disk space is needed and free.

    Raises ValueError if it is not enough.
    """
    folder = features_root()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the disk is too small: {what} needs about {size(needed)} in {FEATURES_PATH} and {size(free)} are free. Free some space, "
            "record fewer images, or keep fewer calls (every, or fewer noise levels)."
        )
    return f"{what} needs about {size(needed)} on disk; {size(free)} are free"


def size(count: float) -> str:
    """Format a number of bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 1000 * scale else f"{count / scale:.0f} {unit}"
    return f"{count:.0f} bytes"


def stack_pictures(paths: Sequence[Path]) -> Tensor:
    """Stack the pictures that exist: IMAGE [N, H, W, 3].

    Only those that have the last one's size. One grey pixel if there are none.
    """
    pictures = [read_picture(p) for p in paths if p.is_file()]
    same = [p for p in pictures if p.shape == pictures[-1].shape]
    return torch.stack(same) if same else torch.full((1, 1, 1, 3), 0.5)
