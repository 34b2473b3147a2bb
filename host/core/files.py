"""Files of the pack's own kinds as the nodes write them: a name, never a path, in the host's models folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from torch import Tensor

from ...methods.data.classifier_training import save_trained
from ...models.adp import save_adp
from ...models.bias_features import save_bias_features
from ...models.files import read_safetensors
from ...models.neuron_path import save_neuron_path
from ...models.sae import save_sae
from ...models.zero_shot_head import save_zero_shot_head
from . import folders
from .names import storable

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FileKind:
    """``key``: of the folder; ``what``: how messages call such a file; ``save(file, path)``: writes one."""

    key: str
    what: str
    save: Callable[[Any, Path], None]

    @property
    def folder(self) -> str:
        """Where files are kept, for messages and tooltips: "models/equipoise/adp"."""
        return folders.folder_hint(self.key)

    def path(self, name: str) -> Path:
        """Where a file of this name is saved (with or without its ending). Raises ValueError for a name that is a path, or that not every
        system can store."""
        stem = name.strip().removesuffix(SUFFIX)
        if not storable(stem):
            raise ValueError(
                f"'{name[:60]}' cannot be the name of {self.what}: use letters, digits, spaces, dashes and single dots, without "
                f"separators; files are kept in {self.folder}."
            )
        return Path(folder_paths.models_dir) / folders.FOLDERS[self.key][0] / f"{stem}{SUFFIX}"

    def write(self, file: Any, name: str, overwrite: bool) -> Path:
        """Save under a temporary name, then rename. Raises ValueError where there is another file of that name, which is not to be
        overwritten."""
        path = self.path(name)
        if not path.exists() or overwrite:
            self.save(file, path)
            return path
        made = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            self.save(file, made)
            if _same(made, path):  # the same graph queued again after a restart
                return path
        finally:
            made.unlink(missing_ok=True)
        raise self.taken(path)

    def taken(self, path: Path) -> ValueError:
        """What is raised where there is another file."""
        return ValueError(
            f"there is another '{path.name}' in {self.folder} already, and nothing was written: choose another name, or set overwrite."
        )

    def hides_shipped(self, path: Path) -> bool:
        """Whether a file of the pack's own has the same name, which the user's now takes the place of."""
        return any(Path(p, path.name).is_file() for p in folder_paths.get_folder_paths(self.key) if Path(p) != path.parent)

    def saved(self, path: Path) -> str:
        """What a node says of a file that was written."""
        note = "\nIt takes the place of the file of that name that ships with the pack." if self.hides_shipped(path) else ""
        return f"{path}{note}"


ADP = FileKind("equipoise_adp", "an ADP", save_adp)
SAE = FileKind("equipoise_sae", "an autoencoder", save_sae)
BIAS_FEATURES = FileKind("equipoise_bias_features", "bias features", save_bias_features)
NEURON_PATH = FileKind("equipoise_neuron_paths", "neuron paths", save_neuron_path)
CLASSIFIER = FileKind("attribute_classifiers", "a classifier", save_trained)
ZERO_SHOT_HEAD = FileKind("equipoise_zero_shot_heads", "a zero-shot head", save_zero_shot_head)


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; their bytes may differ in the order of the metadata, and the time that it took to make them."""
    try:
        (a, said), (b, told) = read_safetensors(one), read_safetensors(other)
        alike = _facts(said) == _facts(told)
    except (ValueError, AttributeError):  # no safetensors file, or information of another kind
        return False
    return alike and a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    info = json.loads(metadata.get("info", "{}"))
    return {**metadata, "info": {k: v for k, v in info.items() if k != "seconds"}}


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equal in shape and values, what was not measured (NaN) being equal to itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())
