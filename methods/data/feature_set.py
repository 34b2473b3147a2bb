"""Feature sets on disk: pooled features of every recorded call, in safetensors shards with a JSON Lines index.

A folder holds

- ``set.json``: how it was recorded (base model, site, channels, latent and sampler settings); a resume compares all of it. ``kind`` is
  "pooled", or "spatial" where unpooled features are kept too.
- ``index.jsonl``: a line per image (:class:`Entry`).
- shards, one per recorded batch: ``features`` [rows, C, 4, 4] fp16, ``log_snr`` [rows] fp32, ``image_id`` [rows] int64 and
  ``conditional`` [rows] bool (absent: every row is conditional). An image's rows are contiguous, from ``offset``.
- for kind "spatial", ``spatial-*`` shards with the same tensors, ``features`` [rows, C, H, W] fp16, at a few noise levels only.
- ``images/``: the pictures, under the names of the entries (made by whoever records).

Whatever is cut off, what the index names is whole: a shard is renamed into place before its index lines are written, at once, in one
write. A torn last line is dropped, and a shard that no line names is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.files import DAMAGE, read_safetensors, stays_below, write_safetensors, write_text

CHUNK_ROWS = 1024
INDEX, META, IMAGES = "index.jsonl", "set.json", "images"
FORMAT, FORMAT_VERSION = "equipoise-feature-set", 1
POOLED, SPATIAL = "pooled", "spatial"


@dataclass(frozen=True)
class Entry:
    """One recorded image."""

    image_id: int
    """Number of the image in the set."""
    file: str
    """Name of its picture."""
    seed: int
    """Seed of its batch."""
    prompt: str
    """Its prompt."""
    shard: str
    """File of its rows."""
    offset: int
    """Its first row in the shard."""
    rows: int
    """Number of its rows: the conditional ones first."""
    place: int = 0
    """Its place in the batch."""
    unconditional: int = 0
    """How many of its rows are unconditional."""
    spatial: str = ""
    """File of its unpooled features; "" for none."""
    spatial_rows: int = 0
    """Number of rows in that file."""

    def line(self) -> str:
        """Write the entry's line of the index.

        Values that equal their default are left out.
        """
        values = asdict(self)
        optional = {f.name: f.default for f in fields(self)[7:]}
        return json.dumps({k: v for k, v in values.items() if k not in optional or v != optional[k]}) + "\n"


@dataclass(frozen=True)
class FeatureSet:
    """A feature set that may be read: every shard that its index names is there."""

    folder: Path
    """Folder of the set."""
    entries: tuple[Entry, ...]
    """Its images."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Content of set.json."""

    @property
    def name(self) -> str:
        """Name of the set's folder."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """Return a short hash of the index and set.json.

        It changes when the set grows, or is recorded again with other settings.
        """
        lines = [json.dumps(self.meta, sort_keys=True), *(e.line() for e in self.entries)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def image_path(self, entry: Entry) -> Path:
        """Return the path of an entry's picture.

        The picture exists only if the recording saved pictures.
        """
        return self.folder / IMAGES / entry.file


class FeatureSetWriter:
    """Appends images to a feature set.

    A shard per call of :meth:`add`; an existing set is continued.

    ``meta``: how the set is recorded, as JSON values (a dict in it is compared, but not shown in messages). Raises ValueError if the folder
    holds a set that was recorded with other settings, or its index names a shard that is missing.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.entries = read_index(self.folder) if (self.folder / INDEX).is_file() else []
        _check_shards(self.folder, self.entries)
        self.meta = self._settle(meta)
        _mend(self.folder)

    @property
    def next_id(self) -> int:
        """Image id of the next image."""
        return 1 + max((e.image_id for e in self.entries), default=-1)

    def add(
        self,
        features: Tensor,
        level: Tensor,
        files: Sequence[str],
        seeds: Sequence[int],
        prompts: Sequence[str],
        *,
        places: Sequence[int] | None = None,
        unconditional: tuple[Tensor, Tensor] | None = None,
        spatial: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Add the features of a batch.

        features [N, calls, C, 4, 4], log-SNR [calls], and N files, seeds, prompts and indices in the batch.

        ``unconditional``: the same pair for rows of the negative; ``spatial``: [N, levels, C, H, W] and log-SNR [levels], unpooled.
        Raises ValueError where a feature is not finite in fp16.
        """
        n, calls, first = features.shape[0], features.shape[1], self.next_id
        stored = _finite(features, level, files)
        conditional = torch.ones(calls, dtype=torch.bool)
        if unconditional is not None:
            other, other_level = unconditional
            stored = torch.cat([stored, _finite(other, other_level, files)], dim=1)
            level = torch.cat([level.float(), other_level.float()])
            conditional = torch.cat([conditional, torch.zeros(len(other_level), dtype=torch.bool)])
        rows, maps, maps_shard = stored.shape[1], 0, ""
        if spatial is not None:
            maps, maps_shard = spatial[0].shape[1], f"spatial-{first:06d}.safetensors"
            complete = torch.ones(maps, dtype=torch.bool)
            self._write(maps_shard, _finite(*spatial, files), spatial[1], complete, first)
        shard = f"shard-{first:06d}.safetensors"
        self._write(shard, stored, level, conditional, first)
        new = [
            Entry(
                image_id=first + i,
                file=files[i],
                seed=seeds[i],
                prompt=prompts[i],
                shard=shard,
                offset=i * rows,
                rows=rows,
                place=places[i] if places is not None else 0,
                unconditional=rows - calls,
                spatial=maps_shard,
                spatial_rows=maps,
            )
            for i in range(n)
        ]
        _append(self.folder / INDEX, "".join(e.line() for e in new).encode("utf-8"))
        self.entries += new

    def _write(self, shard: str, features: Tensor, level: Tensor, conditional: Tensor, first: int) -> None:
        n, rows = features.shape[:2]
        tensors = {
            "features": features.flatten(0, 1),
            "log_snr": level.float().repeat(n),
            "image_id": torch.arange(first, first + n).repeat_interleave(rows),
            "conditional": conditional.repeat(n),
        }
        write_safetensors(self.folder / shard, tensors)

    def _settle(self, meta: Mapping[str, Any] | None) -> dict[str, Any]:
        """Compare with the set.json that is there, or write one.

        A set without images takes on whatever it is asked for.
        """
        if (self.folder / META).is_file() and (self.entries or meta is None):
            stored = read_meta(self.folder)
            if meta is not None:
                refuse_other_settings(self.folder.name, stored, meta)
            return stored
        if meta is not None and self.entries:
            raise ValueError(
                f"'{self.folder.name}' holds {len(self.entries)} images and no {META} that says how they were recorded, so no "
                "images can be added: give the new set another name."
            )
        stored = {"format": FORMAT, "version": FORMAT_VERSION, "kind": POOLED, **(meta or {})}
        write_text(self.folder / META, json.dumps(stored, indent=1) + "\n")
        return stored


def read_index(folder: Path) -> list[Entry]:
    """Read the entries of a feature set.

    A last line that was cut off in writing is left out. Unknown keys are ignored.

    Raises ValueError where there is no index, or another line is broken.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise ValueError(
            f"'{Path(folder).name}' is no feature set: it has no {INDEX}. Record one first (Record Features, or equipoise sample --record "
            "DIR)."
        )
    known = {f.name for f in fields(Entry)}
    entries = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entries.append(_checked(Entry(**{k: v for k, v in json.loads(line).items() if k in known})))
        except DAMAGE as error:
            if number == len(lines):
                break
            where = f"line {number} of {INDEX} in '{Path(folder).name}'"
            raise ValueError(f"{where} is broken ({_plain(error)}): remove that line.") from error
    if len({e.image_id for e in entries}) < len(entries):
        raise ValueError(f"{INDEX} in '{Path(folder).name}' numbers two images alike: remove one of those lines.")
    return entries


def _checked(entry: Entry) -> Entry:
    """Raise ValueError for a bad value or a path outside the set's folder."""
    for f in fields(Entry):
        value = getattr(entry, f.name)
        kind = str if f.type == "str" else int
        if isinstance(value, bool) or not isinstance(value, kind) or (kind is int and not 0 <= value < 2**64):
            raise ValueError(f"its {f.name} is {_short(value)}")
    for name in (entry.file, entry.shard, *([entry.spatial] if entry.spatial else [])):
        if not stays_below(name):
            raise ValueError(f"{_short(name)} is no name of a file in that folder")
    return entry


def _plain(error: Exception) -> str:
    """Write an error on one line, without a full stop."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def read_meta(folder: Path) -> dict[str, Any]:
    """Read set.json; return {} if there is none.

    Raises ValueError where it cannot be read or is of a newer version.
    """
    path = Path(folder) / META
    if not path.is_file():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = int(meta.get("version", FORMAT_VERSION))
    except DAMAGE as error:
        broken = f"{META} in '{Path(folder).name}' is broken ({_plain(error)})"
        raise ValueError(f"{broken}: restore it from a copy, or record again.") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"'{Path(folder).name}' was recorded by a newer Equipoise (format {version}, and {FORMAT_VERSION} is known): update the pack."
        )
    return meta


def open_feature_set(folder: Path) -> FeatureSet:
    """Open a feature set.

    Raises ValueError if the folder is no feature set, holds no images yet, or lacks a shard that its index names.
    """
    folder = Path(folder)
    entries = read_index(folder)
    if not entries:
        raise ValueError(f"the feature set '{folder.name}' holds no images yet: let Record Features finish a batch first.")
    _check_shards(folder, entries)
    return FeatureSet(folder, tuple(entries), read_meta(folder))


def iterate_shards(folder: Path, entries: Sequence[Entry], conditional: bool | None = True) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the rows of the given images, shard by shard.

    features [rows, C, 4, 4] fp16, log-SNR [rows], image_id [rows].

    ``conditional``: True for the rows of the positive (all there are, unless others were asked for when recording), False for those of
    the negative, None for both. Raises ValueError where a shard is missing or not whole, and, naming the
    image, where features are not finite.
    """
    yield from _iterate(Path(folder), [(e.shard, e) for e in entries], conditional)


def iterate_spatial(folder: Path, entries: Sequence[Entry]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the unpooled rows of the given images, shard by shard.

    features [rows, C, H, W] fp16, log-SNR [rows], image_id [rows].

    Raises ValueError where the set was recorded without them.
    """
    wanted = [(e.spatial, e) for e in entries if e.spatial]
    if not wanted:
        raise ValueError(
            f"'{Path(folder).name}' holds no unpooled features: record a set with noise levels under 'spatial_levels' to have them."
        )
    yield from _iterate(Path(folder), wanted, None)


def refuse_other_settings(name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError if a set was recorded with other settings than wanted.

    The message names the first differences.
    """
    differences = []
    for key, value in wanted.items():
        word = key.replace("_", " ")
        if key not in stored:
            differences.append(f"no word on its {word}")
        elif not _same(stored[key], value):
            differences.append(_difference(word, stored[key], value))
    if differences:
        more = f" and {len(differences) - 3} more differences" if len(differences) > 3 else ""
        raise ValueError(
            f"the feature set '{name}' was recorded with {', '.join(differences[:3])}{more}: restore these "
            "settings to resume it, or give the new set another name."
        )


def _iterate(folder: Path, wanted: Sequence[tuple[str, Entry]], conditional: bool | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    by_shard: dict[str, dict[int, str]] = {}
    for shard, entry in wanted:
        by_shard.setdefault(shard, {})[entry.image_id] = entry.file
    for shard, names in by_shard.items():
        try:
            tensors, _ = read_safetensors(folder / shard)
        except FileNotFoundError:
            raise ValueError(_missing(folder, shard)) from None
        _check_rows(folder, shard, tensors)
        keep = torch.isin(tensors["image_id"], torch.tensor(sorted(names)))
        if conditional is not None and "conditional" in tensors:
            keep &= tensors["conditional"] == conditional
        elif conditional is False:
            keep = torch.zeros_like(keep)
        chosen = tensors["features"][keep], tensors["log_snr"][keep], tensors["image_id"][keep]
        _refuse_not_finite(folder, names, *chosen)
        yield chosen


def _refuse_not_finite(folder: Path, names: Mapping[int, str], features: Tensor, level: Tensor, ids: Tensor) -> None:
    for start in range(0, len(level), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        bad = ~(features[part].flatten(1).isfinite().all(1) & level[part].isfinite())
        if bad.any():
            first = int(bad.nonzero()[0]) + start
            raise ValueError(
                f"the features of '{names[int(ids[first])]}' in '{folder.name}' are not finite (NaN or infinite) at log-SNR "
                f"{float(level[first]):.2f}: remove that image's line from index.jsonl, or record the set again in bf16 or fp32."
            )


def _check_rows(folder: Path, shard: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a shard is damaged, edited, or from elsewhere."""
    parts = [tensors.get(name) for name in ("features", "log_snr", "image_id")]
    rows = {len(t) if t is not None and t.ndim else -1 for t in [*parts, *(tensors[k] for k in ("conditional",) if k in tensors)]}
    if -1 in rows or len(rows) > 1 or parts[0].ndim != 4 or parts[1].ndim != 1 or parts[2].ndim != 1 or parts[2].is_floating_point():
        raise ValueError(f"'{shard}' in the feature set '{folder.name}' is no shard of features: copy it back, or record the set again.")


def _check_shards(folder: Path, entries: Sequence[Entry]) -> None:
    for shard in dict.fromkeys(s for e in entries for s in (e.shard, e.spatial) if s):
        if not (folder / shard).is_file():
            raise ValueError(_missing(folder, shard))


def _missing(folder: Path, shard: str) -> str:
    return (
        f"the index of the feature set '{folder.name}' names '{shard}', which is not in its folder: copy that file back, or record the set "
        "again under another name."
    )


def _mend(folder: Path) -> None:
    """Remove what a killed run left.

    That is files that were never renamed, and a torn last line of the index.
    """
    # ".tmp*": safetensors itself writes under such a name, and renames it to ours.
    for partial in [*folder.glob(".*.partial"), *folder.glob(".tmp*"), *(folder / IMAGES).rglob(".*.partial")]:
        partial.unlink(missing_ok=True)
    path = folder / INDEX
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return
    try:
        json.loads(content[end:])
    except ValueError:
        os.truncate(path, end)
    else:  # a whole line that only lacks its end, as an index made by hand may
        with path.open("ab") as stream:
            stream.write(b"\n")


def _append(path: Path, lines: bytes) -> None:
    """Append all lines of a batch in one unbuffered write.

    So a kill falls before or after it.
    """
    with path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        if stream.write(lines) != len(lines):  # a full disk takes a part and reports no error
            stream.truncate(before)
            raise OSError(f"the disk is full: '{path.parent.name}' could not be added to. Free some space and queue again.")


def _finite(features: Tensor, level: Tensor, files: Sequence[str]) -> Tensor:
    """Convert features [N, calls, ...] to fp16 on the CPU.

    features [N, calls, ...] as fp16 on the CPU.
    """
    half = features.detach().half().cpu()
    bad = ~half.flatten(2).isfinite().all(2)
    if bad.any():
        image, call = bad.nonzero()[0].tolist()
        raise ValueError(
            f"the features of '{files[image]}' at log-SNR {float(level[call]):.2f} are not finite (NaN, infinite, or beyond half "
            "precision), which models that overflow in half precision produce: run the model in bf16 or fp32 and queue again."
        )
    return half


def _same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Compare two JSON values.

    In a dict, which holds measured marks, numbers may differ as devices compute them.
    """
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        both_whole = isinstance(a, int) and isinstance(b, int)
        return a == b if both_whole else math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k], 1e-2) for k in a)
    return a == b


def _difference(word: str, then: Any, now: Any) -> str:
    """Describe how two values differ, in a few words."""
    if isinstance(then, dict) or isinstance(now, dict):
        return f"another {word}"
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        if len(then) != len(now):
            return f"{len(then)} {word} instead of {len(now)}"
        index = next(i for i, (a, b) in enumerate(zip(then, now, strict=True)) if not _same(a, b))
        return f"{word} number {index + 1} {_short(then[index])} instead of {_short(now[index])}"
    return f"{word} {_short(then)} instead of {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
