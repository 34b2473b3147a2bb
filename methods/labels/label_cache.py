"""Readings of images kept beside a feature set, so that a source is asked once for every picture: also after a restart, and for a set that
has grown meanwhile.

A file per source, named by a hash of all that its readings depend on beside the picture (:func:`key_text`); in it a row per picture, which
counts while the picture's size and modification time are as they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.files import DAMAGE, read_safetensors, write_safetensors

FORMAT = "equipoise-label-cache-1"
FOLDER = "labels"


class LabelCache:
    """Rows of readings by picture.

    ``key``: what they depend on, values as JSON knows them; ``kind``: first part of the file's name.
    """

    def __init__(self, folder: Path, kind: str, key: Mapping[str, Any]) -> None:
        self._key = key_text(key)
        self.path = Path(folder) / FOLDER / f"{kind}-{hashlib.sha256(self._key.encode()).hexdigest()[:16]}.safetensors"
        # Plain numbers: small tensors that stay, among large ones that go, would leave holes in memory that grow with the set.
        self._rows: dict[str, dict[str, list[float]]] = self._read()
        self._changed = False

    def __contains__(self, stamp: str) -> bool:
        return stamp in self._rows

    def add(self, stamps: Sequence[str], readings: Mapping[str, Tensor]) -> None:
        """Keep readings (name -> [B, K]) of pictures, given by their stamps (:func:`stamp_of`)."""
        rows = {name: table.detach().float().tolist() for name, table in readings.items()}
        for i, stamp in enumerate(stamps):
            self._rows[stamp] = {name: values[i] for name, values in rows.items()}
        self._changed = self._changed or bool(stamps)

    def table(self, stamps: Sequence[str]) -> dict[str, Tensor]:
        """Return the readings float32 [N, K] by name, in the order of the stamps.

        All stamps must be there.
        """
        return {name: torch.tensor([self._rows[s][name] for s in stamps]) for name in self._rows[stamps[0]]} if stamps else {}

    def save(self) -> None:
        """Write what was added, under a temporary name first. Does nothing where nothing was."""
        if not self._changed:
            return
        stamps = list(self._rows)
        write_safetensors(self.path, self.table(stamps), {"format": FORMAT, "key": self._key, "pictures": json.dumps(stamps)})
        self._changed = False

    def _read(self) -> dict[str, dict[str, list[float]]]:
        """Read the cache.

        It is empty if the file is missing, damaged or of another source, since it can always be made again.
        """
        try:
            tables, meta = read_safetensors(self.path)
            stamps = [str(s) for s in json.loads(meta["pictures"])]
        except (OSError, *DAMAGE):
            return {}
        fits = bool(tables) and all(t.ndim == 2 and len(t) == len(stamps) and bool(t.isfinite().all()) for t in tables.values())
        if meta.get("format") != FORMAT or meta.get("key") != self._key or not fits:
            return {}
        rows = {name: table.tolist() for name, table in tables.items()}
        return {stamp: {name: values[i] for name, values in rows.items()} for i, stamp in enumerate(stamps)}


def key_text(key: Mapping[str, Any]) -> str:
    """Write all settings that readings depend on as one text.

    The order of the keys does not matter.
    """
    return json.dumps(key, sort_keys=True, ensure_ascii=True)


def stamp_of(name: str, path: Path) -> str:
    """Describe a picture's file by its name, modification time (ns) and size.

    Raises FileNotFoundError where it is not there.
    """
    stat = path.stat()
    return f"{name}|{stat.st_mtime_ns}|{stat.st_size}"
