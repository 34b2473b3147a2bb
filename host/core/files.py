"""Find, name and write the pack's model files: a name, never a path, in the host's model folders.

Files are searched in the user's model folders first, then among those that ship with the pack, which are read only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import folder_paths
from torch import Tensor

from ...models.files import read_metadata, read_safetensors

Content = TypeVar("Content")

SUFFIX = ".safetensors"
MODEL_FOLDERS: dict[str, tuple[str, str]] = {
    "equipoise_adp": ("equipoise/adp", "adp"),
    "equipoise_sae": ("equipoise/sae", "sae"),
    "equipoise_bias_features": ("equipoise/bias_features", "bias_features"),
    "equipoise_diffusion": ("equipoise/diffusion", "diffusion"),
    "equipoise_neuron_paths": ("equipoise/neuron_paths", "neuron_paths"),
    "equipoise_zero_shot_heads": ("equipoise/zero_shot_heads", "zero_shot_heads"),
    "attribute_classifiers": ("attribute_classifiers", "attribute_classifiers"),
}
"""The host's folder key -> (folder below the host's models folder, folder below shipped/weights)."""
MAKERS = {
    "equipoise_adp": "The templates '3 Two prompts on your SD1.5' and '4 Two prompts on your SDXL' make one for your checkpoint",
    "equipoise_sae": "The template 'Lab train_sae_sd15' makes one for your checkpoint",
    "equipoise_bias_features": "The template 'Lab train_sae_sd15' makes them for your checkpoint",
    "equipoise_neuron_paths": "The template 'Lab neuron_path_audit' makes one",
    "attribute_classifiers": "The template 'Lab balanced_dataset' trains one",
}
"""The host's folder key -> the template that makes a missing file of this kind."""
_SHIPPED_WEIGHTS = Path(__file__).resolve().parents[2] / "shipped" / "weights"
_NAME = re.compile(r"\w[\w .,+()=@-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


# -- names ---------------------------------------------------------------------------------------------------------------------------


def storable(name: str) -> bool:
    """Tell whether a name is one part of a path that every system can store."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and not name.endswith((".", " ")) and not _RESERVED.fullmatch(name)


def check_file_name(name: str, what: str, folder: str) -> None:
    """Raise ValueError for a name that cannot be stored.

    ``what``: what it names, such as "a ledger". ``folder``: where that is stored.
    """
    if not storable(name):
        raise ValueError(
            f"'{name[:60]}' cannot be the name of {what} (stored in {folder}): use letters, digits, spaces, dashes and single dots, and no "
            "separators."
        )


# -- folders -------------------------------------------------------------------------------------------------------------------------


def register_model_folders() -> None:
    """Add the pack's folder keys to the host's. Calling it twice changes nothing.

    Order of search: what extra_model_paths.yaml or another pack registered before, the host's models folder, the pack's own weights.
    """
    for key, (below_models, below_weights) in MODEL_FOLDERS.items():
        paths, extensions = folder_paths.folder_names_and_paths.get(key, ([], set()))
        own = str(_SHIPPED_WEIGHTS / below_weights)
        wanted = [p for p in paths if os.path.normpath(p) != os.path.normpath(own)]
        wanted += [os.path.join(folder_paths.models_dir, *below_models.split("/")), own]
        folder_paths.folder_names_and_paths[key] = (list(dict.fromkeys(wanted)), set(extensions) | {SUFFIX})


def folder_hint(key: str) -> str:
    """Return the folder where a user puts files of this kind, such as "models/equipoise/adp"."""
    return f"models/{MODEL_FOLDERS[key][0]}"


def choices(key: str) -> list[str]:
    """List the files of one kind, as a combo shows them."""
    return list(folder_paths.get_filename_list(key))


def choices_where(key: str, accepts: Callable[[Mapping[str, str]], bool]) -> list[str]:
    """List the files of one kind whose metadata is accepted.

    A file that cannot be read has no metadata.
    """
    accepted = []
    for name in choices(key):
        try:
            metadata = read_metadata(resolve(key, name))
        except (OSError, ValueError):
            metadata = {}
        if accepts(metadata):
            accepted.append(name)
    return accepted


def resolve(key: str, name: str) -> Path:
    """Return the path of a file of one kind.

    Raises FileNotFoundError, which says where to put it and what is there.
    """
    path = folder_paths.get_full_path(key, name)
    if path is None:
        raise FileNotFoundError(missing_text(key, name))
    return Path(path)


def missing_text(key: str, name: str) -> str:
    """Say that there is no file of this name, what there is, and which template makes one."""
    known, maker = ", ".join(choices(key)) or "nothing", f" {MAKERS[key]}." if key in MAKERS else ""
    return f"'{name[:120]}' is not in {folder_hint(key)} (this folder has: {known}): put the file there or choose another one.{maker}"


def checked_choice(key: str, name: str | None) -> bool | str:
    """Check a loader's choice before the graph runs: True, or what is missing. None stands for a name that is not known yet."""
    return True if name is None or name in choices(key) else missing_text(key, name)


def fingerprint(key: str, name: str) -> str:
    """Return a file's path, modification time (ns) and size, to notice changes."""
    path = folder_paths.get_full_path(key, name)
    if path is None:
        return f"{key}/{name}: missing"
    stat = os.stat(path)
    return f"{path}|{stat.st_mtime_ns}|{stat.st_size}"


# -- writing -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileKind(Generic[Content]):
    """A kind of file that nodes write. Each system defines its own."""

    key: str
    """The host's key of its folder."""
    what: str
    """Name of such a file in messages, such as "an ADP"."""
    save: Callable[[Content, Path], None]
    """Writes an object to a path."""

    @property
    def folder(self) -> str:
        """Folder for messages and tooltips, such as "models/equipoise/adp"."""
        return folder_hint(self.key)

    def path(self, name: str) -> Path:
        """Return the path for a name, with or without its ending.

        Raises ValueError for a name that cannot be stored.
        """
        stem = name.strip().removesuffix(SUFFIX)
        check_file_name(stem, self.what, self.folder)
        return Path(folder_paths.models_dir) / MODEL_FOLDERS[self.key][0] / f"{stem}{SUFFIX}"

    def write(self, file: Content, name: str, overwrite: bool) -> Path:
        """Save under a temporary name, then rename.

        Raises ValueError for another file of that name, unless ``overwrite``.
        """
        path = self.path(name)
        if not path.exists() or overwrite:
            self.save(file, path)
            return path
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            self.save(file, temporary)
            if _same(temporary, path):  # the same graph queued again after a restart
                return path
        finally:
            temporary.unlink(missing_ok=True)
        raise self.name_taken(path)

    def name_taken(self, path: Path) -> ValueError:
        """Return the error for a name that another file has."""
        return ValueError(
            f"there is another '{path.name}' in {self.folder}, so nothing was written: choose another name, or turn on overwrite."
        )

    def hides_shipped(self, path: Path) -> bool:
        """Tell whether the file hides a shipped file of the same name."""
        return any(Path(p, path.name).is_file() for p in folder_paths.get_folder_paths(self.key) if Path(p) != path.parent)

    def saved_text(self, path: Path) -> str:
        """Return the text that a node shows after it wrote a file."""
        note = "\nIt is used in place of the file of that name that ships with the pack." if self.hides_shipped(path) else ""
        return f"{path}{note}"


def _same(one: Path, other: Path) -> bool:
    """Compare two files.

    The order of their metadata, and the time that it took to make them, do not count.
    """
    try:
        (tensors, metadata), (other_tensors, other_metadata) = read_safetensors(one), read_safetensors(other)
        alike = _facts(metadata) == _facts(other_metadata)
    except (ValueError, AttributeError):  # no safetensors file, or information of another kind
        return False
    return alike and tensors.keys() == other_tensors.keys() and all(_equal(v, other_tensors[k]) for k, v in tensors.items())


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    info = json.loads(metadata.get("info", "{}"))
    return {**metadata, "info": {k: v for k, v in info.items() if k != "seconds"}}


def _equal(a: Tensor, b: Tensor) -> bool:
    """Compare shapes, types and values. NaN (not measured) equals itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())
