"""Where feature sets and the pictures for them are: names, never paths, below the host's output and input folders."""

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

PLACE = "output/equipoise/features"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def features_root() -> Path:
    """Folder that holds the feature sets; it need not exist yet."""
    return Path(folder_paths.get_output_directory()) / "equipoise" / "features"


def set_folder(name: str) -> Path:
    """Folder of a set. Raises ValueError for a name that is a path, or that not every system can store."""
    name = name.strip()
    check_file_name(name, "a feature set", PLACE)
    return features_root() / name


def set_names() -> list[str]:
    """Names of the sets that are there."""
    root = features_root()
    return sorted(p.name for p in root.iterdir() if (p / INDEX).is_file() and storable(p.name)) if root.is_dir() else []


def set_fingerprint(name: str) -> str:
    """What the host compares to know whether a set changed: modification time (ns) and size of its index."""
    try:
        stat = os.stat(set_folder(name) / INDEX)
    except (OSError, ValueError):
        return f"{name}: missing"
    return f"{name}|{stat.st_mtime_ns}|{stat.st_size}"


def picture_files(folder: str) -> tuple[Path, list[str]]:
    """A folder below the host's input folder, and the pictures in it and below: names relative to it with forward slashes, in order.

    Raises ValueError for a path that leads elsewhere, and where there are no pictures.
    """
    text = folder.strip()
    parts = PurePosixPath(text.replace("\\", "/")).parts
    if not stays_below("/".join(parts)):
        raise ValueError(
            f"'{folder[:60]}' is no folder below ComfyUI's input folder: give its name there, such as 'portraits' or 'data/faces'."
        )
    place = Path(folder_paths.get_input_directory()).joinpath(*parts)
    if not place.is_dir():
        raise ValueError(f"there is no folder '{text}' in ComfyUI's input folder: copy the pictures there, or correct the name.")
    files = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not files:
        raise ValueError(f"the folder '{text}' holds no pictures ({', '.join(PICTURES)}): put some into it, or choose another one.")
    return place, files


def read_picture(path: Path) -> Tensor:
    """float32 [H, W, 3] in 0..1, turned as its EXIF data say. Raises ValueError where it cannot be read."""
    try:
        with Image.open(path) as picture:
            turned = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture '{path.name}' cannot be read ({error}): take it out of the folder, or replace it.") from error
    return torch.from_numpy(np.array(turned)).float() / 255


def write_picture(picture: Tensor, path: Path) -> None:
    """Write [H, W, 3] in 0..1 in the format that the name's ending says, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        Image.fromarray(pixels).save(partial, format=Image.registered_extensions()[path.suffix.lower()], quality=95)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_disk(needed: float, what: str) -> str:
    """A line that says how much disk is needed and free. Raises ValueError where it is not enough."""
    place = features_root()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ValueError(
            f"the disk is too small: {what} needs about {size(needed)} in {PLACE} and {size(free)} are free. Free some space, record fewer "
            "images, or keep fewer calls (every, or fewer noise levels)."
        )
    return f"{what} needs about {size(needed)} on disk; {size(free)} are free"


def size(count: float) -> str:
    """A number of bytes as people read it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 1000 * scale else f"{count / scale:.0f} {unit}"
    return f"{count:.0f} bytes"


def stack_pictures(paths: Sequence[Path]) -> Tensor:
    """IMAGE [N, H, W, 3] of those pictures that are there and of the last one's size; one grey pixel where there is none."""
    found = [read_picture(p) for p in paths if p.is_file()]
    same = [p for p in found if p.shape == found[-1].shape]
    return torch.stack(same) if same else torch.full((1, 1, 1, 3), 0.5)
