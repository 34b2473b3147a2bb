"""ADP files as the nodes write them: a name, never a path, in the host's models folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import folder_paths
import torch

from ..models.adp import AdpFile, save_adp
from ..models.files import read_safetensors
from . import folders

KEY = "equipoise_adp"
_NAME = re.compile(r"\w[\w .,+()=@-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
SUFFIX = ".safetensors"


def adp_path(name: str) -> Path:
    """Where an ADP of this name is saved (with or without its ending). Raises ValueError for a name that is a path, or that not every
    system can store."""
    stem = name.strip().removesuffix(SUFFIX)
    if not _NAME.fullmatch(stem) or ".." in stem or stem.endswith((".", " ")) or _RESERVED.fullmatch(stem):
        raise ValueError(
            f"'{name[:60]}' cannot be the name of an ADP: use letters, digits, spaces, dashes and single dots, without separators; files "
            f"are kept in {folders.folder_hint(KEY)}."
        )
    return Path(folder_paths.models_dir) / folders.FOLDERS[KEY][0] / f"{stem}{SUFFIX}"


def write_adp(adp: AdpFile, name: str, overwrite: bool) -> Path:
    """Save under a temporary name, then rename. Raises ValueError where there is another file of that name, which
    is not to be overwritten."""
    path = adp_path(name)
    if not path.exists() or overwrite:
        save_adp(adp, path)
        return path
    made = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        save_adp(adp, made)
        if _same(made, path):  # the same graph queued again after a restart
            return path
    finally:
        made.unlink(missing_ok=True)
    raise ValueError(
        f"there is another '{path.name}' in {folders.folder_hint(KEY)} already, and nothing was written: choose another name, or set "
        "overwrite."
    )


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; their bytes may differ in the order of the metadata."""
    try:
        (a, said), (b, told) = read_safetensors(one), read_safetensors(other)
    except ValueError:
        return False
    return said == told and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def hides_shipped(path: Path) -> bool:
    """Whether a file of the pack's own has the same name, which the user's now takes the place of."""
    return any(Path(p, path.name).is_file() for p in folder_paths.get_folder_paths(KEY) if Path(p) != path.parent)
