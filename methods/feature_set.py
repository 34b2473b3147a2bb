"""Feature sets on disk: pooled features of every recorded call, in safetensors shards with a JSON Lines index.

``index.jsonl`` has a line per image (image_id, file, seed, prompt, shard, offset, rows); a shard holds ``features`` [rows, C, 4, 4] fp16,
``log_snr`` [rows] fp32 and ``image_id`` [rows] int64. An image's rows are contiguous, from ``offset``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..models.files import read_safetensors, write_safetensors

INDEX = "index.jsonl"


@dataclass(frozen=True)
class Entry:
    """One recorded image."""

    image_id: int
    file: str
    seed: int
    prompt: str
    shard: str
    offset: int
    rows: int


class FeatureSetWriter:
    """Append images to a feature set, a shard per call of :meth:`add`: the shard first, then its index lines, so that a cut-off run loses
    at most the shard that it was writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.entries = read_index(self.folder) if (self.folder / INDEX).is_file() else []

    def add(self, features: Tensor, level: Tensor, files: list[str], seeds: list[int], prompts: list[str]) -> None:
        """features [N, calls, C, 4, 4], log-SNR [calls], and N files, seeds and prompts."""
        n, calls = features.shape[:2]
        first = len(self.entries)
        shard = f"shard-{first:06d}.safetensors"
        ids = torch.arange(first, first + n)
        write_safetensors(
            self.folder / shard,
            {
                "features": features.flatten(0, 1).half(),
                "log_snr": level.float().repeat(n),
                "image_id": ids.repeat_interleave(calls),
            },
        )
        new = [Entry(first + i, files[i], seeds[i], prompts[i], shard, i * calls, calls) for i in range(n)]
        with (self.folder / INDEX).open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(asdict(e)) + "\n" for e in new))
        self.entries += new


def read_index(folder: Path) -> list[Entry]:
    """Entries of a feature set. Raises ValueError where there is none, or a line is broken."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise ValueError(f"'{Path(folder).name}' is no feature set: it has no {INDEX}. Record one first (equipoise sample --record DIR).")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {number} of {INDEX} in '{Path(folder).name}' is broken ({error}): remove that line.") from error
    return entries


def iterate_shards(folder: Path, entries: list[Entry]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """features [rows, C, 4, 4] fp16, log-SNR [rows], image_id [rows] of the given images, shard by shard."""
    wanted: dict[str, set[int]] = {}
    for entry in entries:
        wanted.setdefault(entry.shard, set()).add(entry.image_id)
    for shard, ids in wanted.items():
        tensors, _ = read_safetensors(Path(folder) / shard)
        keep = torch.isin(tensors["image_id"], torch.tensor(sorted(ids)))
        yield tensors["features"][keep], tensors["log_snr"][keep], tensors["image_id"][keep]
