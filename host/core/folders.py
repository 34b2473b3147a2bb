"""Where model files are found: the user's model folders first, then what ships with the pack (read only)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import folder_paths

from ...models.files import read_metadata

_PACK_WEIGHTS = Path(__file__).resolve().parents[2] / "shipped" / "weights"
_EXTENSIONS = {".safetensors"}

FOLDERS: dict[str, tuple[str, str | None]] = {
    "equipoise_adp": ("equipoise/adp", "adp"),
    "equipoise_sae": ("equipoise/sae", "sae"),
    "equipoise_bias_features": ("equipoise/bias_features", "bias_features"),
    "equipoise_diffusion": ("equipoise/diffusion", "diffusion"),
    "equipoise_neuron_paths": ("equipoise/neuron_paths", "neuron_paths"),
    "equipoise_zero_shot_heads": ("equipoise/zero_shot_heads", "zero_shot_heads"),
    "attribute_classifiers": ("attribute_classifiers", "attribute_classifiers"),
}
"""Folder key -> (folder below the host's models folder, folder below shipped/weights)."""


def register_model_folders() -> None:
    """Make the pack's folder keys known to the host. Calling it twice changes nothing.

    Order of search: what extra_model_paths.yaml or another pack registered before, the host's models folder, the pack's own weights.
    """
    for key, (below_models, below_weights) in FOLDERS.items():
        paths, extensions = folder_paths.folder_names_and_paths.get(key, ([], set()))
        own = str(_PACK_WEIGHTS / below_weights)
        wanted = [p for p in paths if os.path.normpath(p) != os.path.normpath(own)]
        wanted += [os.path.join(folder_paths.models_dir, *below_models.split("/")), own]
        folder_paths.folder_names_and_paths[key] = (list(dict.fromkeys(wanted)), set(extensions) | _EXTENSIONS)


def folder_hint(key: str) -> str:
    """Where a user puts files of this kind, for messages and tooltips: "models/equipoise/adp"."""
    return f"models/{FOLDERS[key][0]}"


def choices(key: str) -> list[str]:
    """Names of the files of one kind, as a combo shows them. Empty where there are none."""
    return list(folder_paths.get_filename_list(key))


def choices_where(key: str, accepts: Callable[[Mapping[str, str]], bool]) -> list[str]:
    """Those of :func:`choices` whose metadata is accepted; a file that cannot be read counts as one without metadata."""
    kept = []
    for name in choices(key):
        try:
            metadata = read_metadata(resolve(key, name))
        except (OSError, ValueError):
            metadata = {}
        if accepts(metadata):
            kept.append(name)
    return kept


def resolve(key: str, name: str) -> Path:
    """Path of a file of one kind. Raises FileNotFoundError, saying where to put it and what is there."""
    path = folder_paths.get_full_path(key, name)
    if path is None:
        known = ", ".join(choices(key)) or "nothing"
        raise FileNotFoundError(f"'{name}' is not in {folder_hint(key)} (found there: {known}): put the file there or choose another one.")
    return Path(path)


def fingerprint(key: str, name: str) -> str:
    """What the host compares to know whether a file changed: path, modification time (ns) and size; the name where there is no file."""
    path = folder_paths.get_full_path(key, name)
    if path is None:
        return f"{key}/{name}: missing"
    stat = os.stat(path)
    return f"{path}|{stat.st_mtime_ns}|{stat.st_size}"
