"""Add images to a data set: nothing is overwritten, no image comes in twice, and an interrupted addition is repaired.

A picture is written under a hidden name, then its row is appended, then the picture gets its name, which is made of its pixels. The row
decides: when the set is opened next, a hidden picture with a row gets its name, and one without a row is removed.
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
    counts_text,
    read_facts,
    read_metadata_rows,
)

CSV = "labels.csv"
PENDING = ".pending"
_UNSAFE = re.compile(r"[^\w .+-]")


@dataclass(frozen=True)
class Item:
    """Hold an image that may be added."""

    digest: str
    """Digest of its pixels, hexadecimal."""
    labels: dict[str, str]
    """Attribute -> class."""
    png: Callable[[], bytes]
    """Makes the content of its file."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its row."""


@dataclass
class Saved:
    """Count what was added to a data set."""

    files: list[str] = field(default_factory=list)
    """Files that were added, relative to the root."""
    splits: Counter[str] = field(default_factory=Counter)
    """Images that were added, by split."""
    known: int = 0
    """Images that the data set had already."""
    full: int = 0
    """Images that were left out because their cell of the target is full."""

    def text(self) -> str:
        """Put the counts into words."""
        parts = [f"saved {len(self.files)} ({counts_text(self.splits)})" if self.files else "saved none"]
        parts += [f"{self.known} were in the data set already"] if self.known else []
        parts += [f"{self.full} left out, because their share of the target is full"] if self.full else []
        return "; ".join(parts)


class ImageFolderWriter:
    """Add images to a data set, new or old.

    ``attributes``: name -> classes, which all of its images have.

    ``class_folder``: an attribute whose classes become folders ("" for none). Raises ValueError if there is a set of that name with other
    attributes, classes or folders, or a folder that is not a data set of ours.
    """

    def __init__(self, root: Path, attributes: Mapping[str, Sequence[str]], class_folder: str = "") -> None:
        self.root, self.attributes = root, {a: tuple(c) for a, c in attributes.items()}
        self.class_folder = class_folder
        if class_folder and class_folder not in self.attributes:
            raise ValueError(f"'{class_folder}' cannot name the folders, because the images have labels of {', '.join(attributes)} alone.")
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
        """Save the items that are new and that the target has room for.

        ``splits``: see :func:`parse_splits`. ``each`` is called before every item, and may raise: all items before it are saved. With a
        target and ``size``, a cell gets at most its share of ``size`` images; with a target alone, as many as keep the data set at the
        target's shares; ``size`` alone limits the number of images.
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
        """Count the images of every cell of the target, or of all together without one."""
        return Counter(cell_of(r, target) for rows in self.rows.values() for r in rows)

    def _room(self, new: Sequence[Item], target: TargetDistribution | None, size: int) -> dict[tuple[str, ...], int] | None:
        """Return how many images of every cell may still be added; None for any number."""
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
        """Choose the split that lacks most images with these labels.

        So all splits are composed alike.
        """
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
        if path.exists():  # a file of the user's own, without a row
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
            raise ValueError(f"the folder '{self.root.name}' exists and is not a data set of Equipoise: choose another name.")
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
        """Repair what was interrupted, and read the rows."""
        rows_of: dict[str, list[dict[str, Any]]] = {}
        for split in SPLITS:
            path = self.root / split / METADATA
            if path.is_file():
                cut_half_line(path)
            rows_of[split] = read_metadata_rows(path) if path.is_file() else []
            lacking = next((n for n, r in enumerate(rows_of[split], 1) if any(not isinstance(r.get(a), str) for a in self.attributes)), 0)
            if lacking:
                raise ValueError(f"row {lacking} of '{split}/{METADATA}' lacks a label ({', '.join(self.attributes)}): correct the row.")
            named = {r[FILE_NAME] for r in rows_of[split]}
            for pending in sorted((self.root / split).rglob(f".*{PENDING}")):
                picture = pending.with_name(pending.name[1 : -len(PENDING)])
                if picture.relative_to(self.root / split).as_posix() in named and not picture.exists():
                    os.rename(pending, picture)
                else:
                    pending.unlink()
        self._repair_csv(rows_of)
        return rows_of

    def _repair_csv(self, rows_of: Mapping[str, list[dict[str, Any]]]) -> None:
        path = self.root / CSV
        written: set[str] = set()
        if path.is_file():
            cut_half_line(path)
            try:
                written = {line[0] for line in csv.reader(path.read_text(encoding="utf-8").splitlines()) if line}
            except (UnicodeDecodeError, csv.Error) as error:
                raise ValueError(
                    f"'{CSV}' in the data set '{self.root.name}' is damaged: remove this file, and Equipoise writes it anew."
                ) from error
        self._write_csv([(s, r) for s, rows in rows_of.items() for r in rows if f"{s}/{r[FILE_NAME]}" not in written])

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
            raise ValueError(f"the classes of '{self.class_folder}' do not give different folder names: {', '.join(classes)}.")
        return named


def parse_splits(text: str) -> dict[str, float]:
    """Parse "train=0.8, test=0.2" or "train" to split -> share, which sum to 1.

    Raises ValueError for unknown splits and bad shares.
    """
    shares: dict[str, float] = {}
    for part in (p.strip() for p in re.split(r"[,;\n]", text) if p.strip()):
        name, _, value = (x.strip() for x in part.partition("="))
        try:
            share = float(value) if value else 1.0
        except ValueError:
            share = -1.0
        if name not in SPLITS or name in shares or not 0 < share < float("inf"):
            raise ValueError(f"'{part}' is not a split: write one of {', '.join(SPLITS)}, or shares such as train=0.8, test=0.2.")
        shares[name] = share
    if not shares:
        raise ValueError(f"no split is named: write one of {', '.join(SPLITS)}, or shares such as train=0.8, test=0.2.")
    return {s: v / sum(shares.values()) for s, v in shares.items()}


def cell_of(labels: Mapping[str, Any], target: TargetDistribution | None) -> tuple[str, ...]:
    """Return the cell of a target that an image's labels fall into."""
    return () if target is None else tuple(str(labels[a]) for a in target.attributes)


def whole_parts(shares: Sequence[float], n: int) -> list[int]:
    """Divide n into whole numbers in the proportion of the shares.

    By largest remainder (first ones first).
    """
    counts = [int(s * n + 1e-9) for s in shares]
    order = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * n)
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts


def append(path: Path, text: str) -> None:
    """Append full lines in one write, and wait until they are on disk.

    Raises OSError, with nothing appended, if they do not fit.
    """
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
    """Remove the last line if it is half a row.

    A complete last line gets its missing line end.
    """
    data = path.read_bytes()
    if not data or data.endswith(b"\n"):
        return
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    if path.suffix == ".csv":
        try:
            complete = len(next(csv.reader(lines[:1]))) == len(next(csv.reader(lines[-1:])))
        except (csv.Error, StopIteration):
            complete = False
    else:
        try:
            complete = isinstance(json.loads(lines[-1]), dict)
        except (ValueError, RecursionError):
            complete = False
    if complete:
        append(path, "\n")
        return
    with path.open("rb+") as stream:
        stream.truncate(data.rfind(b"\n") + 1)


def _short(value: Any) -> str:
    text = "; ".join(f"{a}: {', '.join(c)}" for a, c in value.items()) if isinstance(value, dict) else str(value or "none")
    return text if len(text) < 120 else f"{text[:117]}..."
