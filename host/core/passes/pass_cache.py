"""Finished passes of a batch, kept below the host's output folder until all of it is drawn.

The host hands on nothing of a prompt that was cancelled; what was finished by then is here, and the same run, queued again, goes on with
it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from torch import Tensor

from ....models.files import read_safetensors, write_safetensors, write_text

log = logging.getLogger("equipoise")

FOLDER = ("equipoise", "unfinished")
CELLS = "assigned.json"


class Unfinished:
    """The kept passes of one run, which ``key`` tells from all others. Files are .latent files, which the host's Load Latent reads."""

    def __init__(self, key: str) -> None:
        self.folder = Path(folder_paths.get_output_directory(), *FOLDER, key)
        self.gone_on = 0
        self._warned = False

    def passes(self, count: int) -> dict[int, Tensor]:
        """What was kept: number of the pass -> samples. What cannot be read is drawn again."""
        found = {}
        for number in range(count):
            path = self._path(number)
            try:
                found[number] = read_safetensors(path)[0]["latent_tensor"] if path.is_file() else None
            except (OSError, ValueError, KeyError) as error:
                log.warning("'%s' cannot be read and is drawn again (%s).", path.name, error)
        found = {number: samples for number, samples in found.items() if samples is not None}
        self.gone_on = sum(len(samples) for samples in found.values())
        return found

    def decided(self) -> list[list[int] | None]:
        """The classes that had been given; none where nothing is kept."""
        try:
            return [None if c is None else [int(cell) for cell in c] for c in json.loads((self.folder / CELLS).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def keep(self, number: int, samples: Tensor, decided: Sequence[Sequence[int] | None]) -> None:
        """Write a finished pass. Where it cannot be written a warning says so, once, and drawing goes on."""
        try:
            write_text(self.folder / CELLS, json.dumps([None if c is None else list(c) for c in decided]))
            write_safetensors(self._path(number), {"latent_tensor": samples, "latent_format_version_0": torch.tensor([])})
        except OSError as error:
            if not self._warned:
                log.warning("finished passes cannot be kept (%s): if this run is cancelled, it begins anew.", error)
            self._warned = True

    def clear(self) -> None:
        """All is drawn: nothing needs to be kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"pass_{number + 1:04d}.latent"


def run_key(graph: Mapping[str, Any] | None, node: str | None, *given: Any) -> str | None:
    """What tells a run from all others: the node and all before it as they were queued, the files that they name (by time and size), and
    the tensors in ``given``. None where the graph is not known, or does not hold the node."""
    if not isinstance(graph, Mapping) or node is None or str(node) not in graph:
        return None
    digest = hashlib.sha256()
    texts: set[str] = set()
    digest.update(json.dumps(_before(graph, str(node), {}, texts), sort_keys=True, default=repr).encode())
    for text in sorted(texts):
        digest.update(_file_of(text).encode())
    for value in given:
        _add(digest, value)
    return digest.hexdigest()[:24]


def _before(graph: Mapping[str, Any], node: str, known: dict[str, str], texts: set[str]) -> str:
    """A hash of a node and of all before it."""
    if node not in known:
        known[node] = "itself"  # a loop, which the host refuses
        entry, inputs = graph.get(node, {}), {}
        for name, value in (entry.get("inputs") or {}).items():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph:
                inputs[name] = [_before(graph, str(value[0]), known, texts), value[1]]
            else:
                inputs[name] = value
                if isinstance(value, str) and 0 < len(value) < 256 and value.isprintable():
                    texts.add(value)
        said = json.dumps([entry.get("class_type"), inputs], sort_keys=True, default=repr)
        known[node] = hashlib.sha256(said.encode()).hexdigest()
    return known[node]


def _file_of(name: str) -> str:
    """Time and size of the files that a widget's text names, in the host's model folders and its input folder."""
    paths = [folder_paths.get_full_path(key, name) for key in list(folder_paths.folder_names_and_paths)]
    paths.append(os.path.join(folder_paths.get_input_directory(), os.path.basename(name)))
    said = []
    for path in sorted({p for p in paths if p}):
        try:
            stat = os.stat(path)
        except (OSError, ValueError):
            continue
        said.append(f"{path}|{stat.st_mtime_ns}|{stat.st_size}")
    return "\n".join(said)


def _add(digest: Any, value: Any) -> None:
    """Add the tensors and plain values of nested lists and dicts; what is neither tells nothing."""
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _add(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for part in value:
            _add(digest, part)
    elif isinstance(value, (str, int, float, bool)):
        digest.update(repr(value).encode())
