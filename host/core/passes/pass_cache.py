"""Finished passes of a batch, cached below ComfyUI's output folder until the whole batch is sampled.

ComfyUI passes on nothing of a prompt that was cancelled. The passes that were finished by then are here. If the same run is queued again,
it resumes from them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import folder_paths
import torch
from torch import Tensor

from ....models.digests import Digest
from ....models.files import read_safetensors, write_safetensors, write_text
from ..types import Graph

log = logging.getLogger("equipoise")

CACHE_FOLDER = ("equipoise", "unfinished")
CELLS_FILE = "assigned.json"


class PassCache:
    """Cache the finished passes of one run.

    Files are .latent files, which the host's Load Latent reads. ``key`` identifies the run.
    """

    def __init__(self, key: str) -> None:
        self.folder = Path(folder_paths.get_output_directory(), *CACHE_FOLDER, key)
        self.resumed_images = 0
        """Number of images that :meth:`passes` read."""
        self._warned = False

    def passes(self, count: int) -> dict[int, Tensor]:
        """Read the cached passes, number -> samples.

        A file that cannot be read is left out, and its pass is sampled again.
        """
        cached = {}
        for number in range(count):
            path = self._path(number)
            try:
                if path.is_file():
                    cached[number] = read_safetensors(path)[0]["latent_tensor"]
            except (OSError, ValueError, KeyError) as error:
                log.warning("'%s' cannot be read, so this pass is sampled again (%s).", path.name, error)
        self.resumed_images = sum(len(samples) for samples in cached.values())
        return cached

    def decided(self) -> list[list[int] | None]:
        """Read the cells that had been assigned; empty if there are none."""
        try:
            text = (self.folder / CELLS_FILE).read_text(encoding="utf-8")
            return [None if cells is None else [int(cell) for cell in cells] for cells in json.loads(text)]
        except (OSError, ValueError, TypeError):
            return []

    def write(self, number: int, samples: Tensor, decided: Sequence[Sequence[int] | None]) -> None:
        """Write a finished pass. If it cannot be written, warn once and continue."""
        try:
            write_text(self.folder / CELLS_FILE, json.dumps([None if c is None else list(c) for c in decided]))
            write_safetensors(self._path(number), {"latent_tensor": samples, "latent_format_version_0": torch.tensor([])})
        except OSError as error:
            if not self._warned:
                log.warning("finished passes cannot be saved (%s). If you cancel this run, it starts from the beginning.", error)
            self._warned = True

    def clear(self) -> None:
        """Delete the files after the whole batch was sampled."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"pass_{number + 1:04d}.latent"


def run_key(graph: Graph | None, node: str | None, *inputs: object) -> str | None:
    """Hash what distinguishes a run from others.

    That is the node and all before it as queued, the files that they name, and the tensors in ``inputs``.
    Files count by time and size. None where the graph is not known or does not hold the node.
    """
    if not isinstance(graph, Mapping) or node is None or str(node) not in graph:
        return None
    digest = hashlib.sha256()
    texts: set[str] = set()
    digest.update(json.dumps(_before(graph, str(node), {}, texts), sort_keys=True, default=repr).encode())
    for text in sorted(texts):
        digest.update(_file_of(text).encode())
    for value in inputs:
        _add(digest, value)
    return digest.hexdigest()[:24]


def _before(graph: Graph, node: str, known: dict[str, str], texts: set[str]) -> str:
    """Hash a node and all nodes before it."""
    if node not in known:
        known[node] = "itself"  # ends at a loop, which the host refuses
        entry, inputs = graph.get(node, {}), {}
        for name, value in (entry.get("inputs") or {}).items():
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph:
                inputs[name] = [_before(graph, str(value[0]), known, texts), value[1]]
            else:
                inputs[name] = value
                if isinstance(value, str) and 0 < len(value) < 256 and value.isprintable():
                    texts.add(value)
        text = json.dumps([entry.get("class_type"), inputs], sort_keys=True, default=repr)
        known[node] = hashlib.sha256(text.encode()).hexdigest()
    return known[node]


def _file_of(name: str) -> str:
    """Return time and size of the files that a widget's text names.

    They are searched in the host's model folders and its input folder.
    """
    paths = [folder_paths.get_full_path(key, name) for key in list(folder_paths.folder_names_and_paths)]
    paths.append(os.path.join(folder_paths.get_input_directory(), os.path.basename(name)))
    facts = []
    for path in sorted({p for p in paths if p}):
        try:
            stat = os.stat(path)
        except (OSError, ValueError):
            continue
        facts.append(f"{path}|{stat.st_mtime_ns}|{stat.st_size}")
    return "\n".join(facts)


def _add(digest: Digest, value: object) -> None:
    """Add the tensors and plain values of nested lists and dicts.

    Other objects are left out.
    """
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
