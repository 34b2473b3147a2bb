"""Adding images to a data set: nothing is overwritten, no image comes in twice, and what a lost process left half done is put right.

A picture is written under a hidden name, then its row is appended, then the picture gets its name, which is made of what it shows. The row
decides: a hidden picture whose row is there gets its name when the set is opened next, one without a row is removed.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models.files import write_text
from ..core.targets import TargetDistribution
from .image_folder import (
    DIGEST,
    FACTS,
    FILE_NAME,
    FORMAT,
    FORMAT_VERSION,
    METADATA,
    OWN_COLUMNS,
    SPLITS,
    read_facts,
    read_metadata_rows,
    said,
)

CSV = "labels.csv"
PENDING = ".pending"
_UNSAFE = re.compile(r"[^\w .+-]")


@dataclass(frozen=True)
class Item:
    """An image that is offered. ``digest``: of its pixels, hexadecimal; ``labels``: attribute -> class; ``png()``: its file; ``extra``:
    further columns."""

    digest: str
    labels: dict[str, str]
    png: Callable[[], bytes]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Saved:
    """What came of images that were offered: how many were saved, by split; ``known``: were there already; ``full``: their part of the
    target is full. ``files``: of those that were saved, relative to the root."""

    files: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    known: int = 0
    full: int = 0

    def text(self) -> str:
        """In words."""
        parts = [f"saved {len(self.files)} ({said(self.splits)})" if self.files else "saved none"]
        parts += [f"{self.known} were there already"] if self.known else []
        parts += [f"{self.full} left out, as the target asks for no more like them"] if self.full else []
        return "; ".join(parts)


class ImageFolderWriter:
    """A data set that is added to. ``attributes``: name -> classes, which all of its images have.

    ``class_folder``: an attribute whose classes become folders ("" for none). Raises ValueError where there is a set of that name with
    other attributes, classes or folders, or a folder that is no data set of ours.
    """

    def __init__(self, root: Path, attributes: Mapping[str, Sequence[str]], class_folder: str = "") -> None:
        self.root, self.attributes = root, {a: tuple(c) for a, c in attributes.items()}
        self.class_folder = class_folder
        if class_folder and class_folder not in self.attributes:
            raise ValueError(f"'{class_folder}' cannot name the folders, as the images have no such labels, only {', '.join(attributes)}.")
        reserved = set(OWN_COLUMNS) & set(self.attributes)
        if reserved:
            raise ValueError(f"'{sorted(reserved)[0]}' is a column that every data set has: give the attribute another name.")
        self._folders = self._class_folders()
        self._open()
        self.rows = self._repair()
        self._digests = {str(r.get(DIGEST)) for rows in self.rows.values() for r in rows}
        self._alike = Counter((s, self._labels(r)) for s, rows in self.rows.items() for r in rows)

    def add(
        self,
        items: Sequence[Item],
        splits: Mapping[str, float],
        target: TargetDistribution | None = None,
        size: int = 0,
        each: Callable[[], None] = lambda: None,
    ) -> Saved:
        """Save those items that are new, and that the target has room for. ``splits``: see :func:`parse_splits`. ``each`` is called before
        every item, and may raise: all before it are saved.

        target with ``size``: at most so many images of every cell as it has of ``size``. target without: as many as keep the whole set at
        the target's shares. ``size`` without a target: so many images at most.
        """
        new, outcome, seen = [], Saved(), set(self._digests)
        for item in items:
            outcome.known += item.digest in seen
            if item.digest not in seen:
                new.append(item)
            seen.add(item.digest)
        room = self._room(new, target, size)
        for item in new:
            each()
            key = cell_of(item.labels, target)
            if room is not None and room.get(key, 0) < 1:
                outcome.full += 1
                continue
            if room is not None:
                room[key] -= 1
            split = self._next_split(item.labels, splits)
            outcome.files.append(self._write(item, split))
            outcome.splits[split] += 1
        return outcome

    def counts(self, target: TargetDistribution | None = None) -> Counter[tuple[str, ...]]:
        """Images of every cell of the target (of all together without one)."""
        return Counter(cell_of(r, target) for rows in self.rows.values() for r in rows)

    def _room(self, new: Sequence[Item], target: TargetDistribution | None, size: int) -> dict[tuple[str, ...], int] | None:
        """How many images of every cell may still come; None for any number."""
        have = self.counts(target)
        if target is None:
            return {(): size - have[()]} if size else None
        if size:
            return {c: n - have[c] for c, n in zip(target.cells, whole_parts(target.shares, size), strict=True)}
        offered = Counter(cell_of(i.labels, target) for i in new)
        wanted = [(c, s) for c, s in zip(target.cells, target.shares, strict=True) if s > 0]
        scale = min((have[c] + offered[c]) / s for c, s in wanted)
        return {c: max(0, int(scale * s + 1e-9) - have[c]) for c, s in wanted}

    def _next_split(self, labels: Mapping[str, str], splits: Mapping[str, float]) -> str:
        """The split that is most behind its share among the images with these labels, so that every one is composed alike."""
        alike = {s: self._alike[s, self._labels(labels)] for s in splits}
        n = sum(alike.values()) + 1
        return max(splits, key=lambda s: (splits[s] * n - alike[s], splits[s]))

    def _labels(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[a]) for a in self.attributes)

    def _write(self, item: Item, split: str) -> str:
        folder = self._folders[item.labels[self.class_folder]] if self.class_folder else ""
        name = f"{folder}/{item.digest[:24]}.png" if folder else f"{item.digest[:24]}.png"
        path = self.root / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # not of this set's rows: somebody's own, and kept
            raise ValueError(f"'{split}/{name}' is in the data set '{self.root.name}' without a row in {METADATA}: move it away.")
        pending = path.with_name(f".{path.name}{PENDING}")
        with pending.open("wb") as stream:
            stream.write(item.png())
            stream.flush()
            os.fsync(stream.fileno())
        row = {FILE_NAME: name, **{a: item.labels[a] for a in self.attributes}, **item.extra, DIGEST: item.digest}
        append(self.root / split / METADATA, json.dumps(row, ensure_ascii=False) + "\n")
        os.rename(pending, path)
        self.rows[split].append(row)
        self._alike[split, self._labels(row)] += 1
        self._digests.add(item.digest)
        self._write_csv([(split, row)])
        return f"{split}/{name}"

    def _open(self) -> None:
        facts = read_facts(self.root)
        mine = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "attributes": {a: list(c) for a, c in self.attributes.items()},
            "class_folder": self.class_folder,
        }
        if facts is None and self.root.is_dir() and any(self.root.iterdir()):
            raise ValueError(f"the folder '{self.root.name}' is there and is no data set of Equipoise: choose another name.")
        if facts is None or not any((self.root / s / METADATA).is_file() for s in SPLITS):
            write_text(self.root / FACTS, json.dumps(mine, indent=1, ensure_ascii=False) + "\n")
            return
        for key, what in (("attributes", "labels"), ("class_folder", "class folders")):
            if facts.get(key) != mine[key]:
                raise ValueError(
                    f"the data set '{self.root.name}' has other {what} ({_short(facts.get(key))}) than these images ({_short(mine[key])}): "
                    "choose another name."
                )

    def _repair(self) -> dict[str, list[dict[str, Any]]]:
        """Put right what was half done, and read the rows."""
        found: dict[str, list[dict[str, Any]]] = {}
        for split in SPLITS:
            path = self.root / split / METADATA
            if path.is_file():
                cut_half_line(path)
            found[split] = read_metadata_rows(path) if path.is_file() else []
            lacking = next((n for n, r in enumerate(found[split], 1) if any(not isinstance(r.get(a), str) for a in self.attributes)), 0)
            if lacking:
                raise ValueError(f"row {lacking} of '{split}/{METADATA}' has not all labels ({', '.join(self.attributes)}): correct it.")
            named = {r[FILE_NAME] for r in found[split]}
            for pending in sorted((self.root / split).rglob(f".*{PENDING}")):
                picture = pending.with_name(pending.name[1 : -len(PENDING)])
                if picture.relative_to(self.root / split).as_posix() in named and not picture.exists():
                    os.rename(pending, picture)
                else:
                    pending.unlink()
        self._repair_csv(found)
        return found

    def _repair_csv(self, found: Mapping[str, list[dict[str, Any]]]) -> None:
        path = self.root / CSV
        there: set[str] = set()
        if path.is_file():
            cut_half_line(path)
            try:
                there = {line[0] for line in csv.reader(path.read_text(encoding="utf-8").splitlines()) if line}
            except (UnicodeDecodeError, csv.Error) as error:
                raise ValueError(f"'{CSV}' in the data set '{self.root.name}' is damaged: remove it, and it is written anew.") from error
        self._write_csv([(s, r) for s, rows in found.items() for r in rows if f"{s}/{r[FILE_NAME]}" not in there])

    def _write_csv(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        path, text = self.root / CSV, io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if not path.exists():
            writer.writerow(["file", *self.attributes])
        for split, row in rows:
            writer.writerow([f"{split}/{row[FILE_NAME]}", *(row[a] for a in self.attributes)])
        if text.getvalue():
            append(path, text.getvalue())

    def _class_folders(self) -> dict[str, str]:
        classes = self.attributes.get(self.class_folder, ())
        named = {c: _UNSAFE.sub("_", c).strip(". ") or "_" for c in classes}
        if len({n.casefold() for n in named.values()}) < len(named):
            raise ValueError(f"the classes of '{self.class_folder}' cannot all be folders of their own: {', '.join(classes)}.")
        return named


def parse_splits(text: str) -> dict[str, float]:
    """ "train=0.8, test=0.2" or "train" -> split -> share, which sum to 1. Raises ValueError for unknown splits and for bad shares."""
    shares: dict[str, float] = {}
    for part in (p.strip() for p in re.split(r"[,;\n]", text) if p.strip()):
        name, _, value = (x.strip() for x in part.partition("="))
        try:
            share = float(value) if value else 1.0
        except ValueError:
            share = -1.0
        if name not in SPLITS or name in shares or not 0 < share < float("inf"):
            raise ValueError(f"'{part}' is no split: write one of {', '.join(SPLITS)}, or shares such as train=0.8, test=0.2.")
        shares[name] = share
    if not shares:
        raise ValueError(f"no split is named: write one of {', '.join(SPLITS)}, or shares such as train=0.8, test=0.2.")
    return {s: v / sum(shares.values()) for s, v in shares.items()}


def cell_of(labels: Mapping[str, Any], target: TargetDistribution | None) -> tuple[str, ...]:
    """The cell of a target that an image's labels fall into."""
    return () if target is None else tuple(str(labels[a]) for a in target.attributes)


def whole_parts(shares: Sequence[float], n: int) -> list[int]:
    """Whole numbers that sum to n in the proportion of the shares, by largest remainder (first ones first)."""
    counts = [int(s * n + 1e-9) for s in shares]
    order = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * n)
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts


def append(path: Path, text: str) -> None:
    """Append whole lines in one write, and wait until they are on disk. Raises OSError where they do not fit, and takes back what did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before, lines = os.fstat(handle).st_size, text.encode("utf-8")
        try:
            if os.write(handle, lines) < len(lines):  # a full disk takes a part and reports no error
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)


def cut_half_line(path: Path) -> None:
    """Remove the last line where it is half of one that was being written; a whole one gets the line end that it lacks."""
    data = path.read_bytes()
    if not data or data.endswith(b"\n"):
        return
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    if path.suffix == ".csv":
        try:
            whole = len(next(csv.reader(lines[:1]))) == len(next(csv.reader(lines[-1:])))
        except (csv.Error, StopIteration):
            whole = False
    else:
        try:
            whole = isinstance(json.loads(lines[-1]), dict)
        except (ValueError, RecursionError):
            whole = False
    if whole:
        append(path, "\n")
        return
    with path.open("rb+") as stream:
        stream.truncate(data.rfind(b"\n") + 1)


def _short(value: Any) -> str:
    text = "; ".join(f"{a}: {', '.join(c)}" for a, c in value.items()) if isinstance(value, dict) else str(value or "none")
    return text if len(text) < 120 else f"{text[:117]}..."
