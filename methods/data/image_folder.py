"""Labelled images as a Hugging Face ``imagefolder``: one folder per split, pictures in it (or in a folder per class), ``metadata.jsonl``
with a row per picture. Any such folder is read; :mod:`.image_folder_writer` writes ours.

Labels say how something looks in a picture; they say nothing of who a person is.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...models.files import DAMAGE, named_classes, stays_below

FORMAT, FORMAT_VERSION = "equipoise-dataset", 1
FACTS, METADATA, METADATA_CSV = "dataset.json", "metadata.jsonl", "metadata.csv"
FILE_NAME, ORIGIN, SOURCE, DIGEST, GRAPH = OWN_COLUMNS = ("file_name", "origin", "source", "sha256", "graph")
REAL, GENERATED = ORIGINS = ("real", "generated")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
FOLDER_LABEL = "label"
"""The attribute of images whose folders are their classes."""
MOST_CLASSES = 64
"""A column of more different words is a caption, or a name, and no attribute."""
NO_ATTRIBUTE = {*OWN_COLUMNS, "text", "caption", "prompt", "seed"}


@dataclass(frozen=True)
class Row:
    """One picture. ``file``: relative to the root, with forward slashes; ``labels``: attribute -> class name; ``source``: where they come
    from, in words ("" where that is not said)."""

    file: str
    split: str
    labels: dict[str, str]
    origin: str
    source: str = ""


@dataclass(frozen=True)
class ImageFolder:
    """What the socket EQUIPOISE_DATASET carries. ``attributes``: name -> class names; ``notes``: what was left out when it was read."""

    root: Path
    attributes: dict[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.root.name

    def of_split(self, split: str) -> ImageFolder:
        """The rows of one split, or all for "all". Raises ValueError where it has none."""
        rows = self.rows if split == "all" else tuple(r for r in self.rows if r.split == split)
        if not rows:
            there = ", ".join(dict.fromkeys(r.split for r in self.rows)) or "nothing"
            raise ValueError(f"the data set '{self.name}' has no images in the split '{split}'; it has: {there}.")
        return replace(self, rows=rows)

    def only(self, attributes: Sequence[str]) -> ImageFolder:
        """Some of the attributes (none: all). Raises ValueError for one that it does not have."""
        chosen = tuple(dict.fromkeys(attributes)) or tuple(self.attributes)
        unknown = next((a for a in chosen if a not in self.attributes), None)
        if unknown is not None:
            raise ValueError(f"the data set '{self.name}' has no labels of '{unknown}'; it has: {', '.join(self.attributes) or 'none'}.")
        return replace(self, attributes={a: self.attributes[a] for a in chosen})

    def counts(self, attribute: str) -> dict[str, int]:
        """Class -> images of it."""
        found = Counter(r.labels.get(attribute) for r in self.rows)
        return {c: found[c] for c in self.attributes[attribute]}

    def indices(self, attribute: str) -> list[int]:
        """Class index of every row; -1 where it has no label of the attribute."""
        index = {c: i for i, c in enumerate(self.attributes[attribute])}
        return [index.get(r.labels.get(attribute, ""), -1) for r in self.rows]

    def text(self) -> str:
        """What it holds, in lines."""
        splits, origins = Counter(r.split for r in self.rows), Counter(r.origin for r in self.rows)
        named = said({s: splits[s] for s in SPLITS if splits[s]})
        lines = [f"'{self.name}': {len(self.rows)} images ({named}; {said(origins)})"]
        lines += [f"{a}: {said(self.counts(a))}" for a in self.attributes]
        return "\n".join([*lines, *self.notes])


def said(counts: Mapping[str, int]) -> str:
    """Counts in words."""
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"


def open_image_folder(root: str | os.PathLike[str]) -> ImageFolder:
    """Read a data set: one of ours, any other ``imagefolder`` with metadata (text columns of at most 64 different values are attributes),
    or pictures in a folder per class.

    Raises ValueError, in one sentence, where there is no such folder, no picture in it, metadata that cannot be read, or no label.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"there is no data set '{root.name}': save one first, or choose another.")
    facts = read_facts(root)
    files = [f for name in (METADATA, METADATA_CSV) for f in sorted(root.rglob(name)) if not _hidden(f.relative_to(root))]
    tables = [(f, read_metadata_rows(f)) for f in files]
    rows = [row for f, table in tables for row in _labelled(root, f, table)] if files else _by_folder(root)
    there = [r for r in rows if (root / r.file).is_file()]
    notes = [f"{len(rows) - len(there)} rows name pictures that are not there, and were left out"] if len(there) < len(rows) else []
    if not there:
        raise ValueError(f"the data set '{root.name}' holds no labelled pictures: save some first, or choose another.")
    attributes = {a: tuple(c) for a, c in facts["attributes"].items()} if facts else _attributes(there)
    if not attributes:
        raise ValueError(
            f"the data set '{root.name}' has pictures and no labels: expected columns of class names in {METADATA}, or a folder per class."
        )
    return ImageFolder(root, attributes, tuple(there), tuple(notes))


def read_facts(root: Path) -> dict[str, Any] | None:
    """What ``dataset.json`` says; None where there is none. Raises ValueError where it is not ours, or of another version."""
    path = root / FACTS
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] == FORMAT and facts["version"] == FORMAT_VERSION and named_classes(facts["attributes"]):
            return facts
    except DAMAGE:
        pass
    raise ValueError(f"'{FACTS}' in the data set '{root.name}' is damaged, or of another version of Equipoise: move that folder away.")


def read_metadata_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metadata.jsonl or metadata.csv. A last line that was cut off is left out. Raises ValueError where a row is no row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = list(csv.DictReader(io.StringIO(text, newline=""))) if path.name == METADATA_CSV else []
    except (UnicodeDecodeError, csv.Error) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"'{path.parent.name}/{path.name}' is not text of its kind in UTF-8 ({reason}): copy it again.") from error
    if path.name == METADATA_CSV:
        rows: list[dict[str, Any]] = table
    else:
        whole = text[: text.rfind("\n") + 1] if _cut_off(text) else text
        rows = [_parsed(path, n, line) for n, line in enumerate(whole.splitlines(), 1) if line.strip()]
    wrong = next((n for n, r in enumerate(rows, 1) if not isinstance(r.get(FILE_NAME), str)), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} of '{path.parent.name}/{path.name}' has no {FILE_NAME}: correct it, or remove the row.")
    return rows


def joined_folders(folders: Sequence[ImageFolder]) -> dict[str, tuple[str, ...]]:
    """The attributes that several data sets have together: those of the first that all label, with its classes first and the others' after.

    Raises ValueError where they have none in common.
    """
    common = [a for a in folders[0].attributes if all(a in f.attributes for f in folders)]
    if not common:
        have = "; ".join(f"'{f.name}': {', '.join(f.attributes)}" for f in folders)
        raise ValueError(f"the data sets label no attribute in common ({have}): give their columns the same names.")
    return {a: tuple(dict.fromkeys(c for f in folders for c in f.attributes[a])) for a in common}


def split_of(parts: Sequence[str]) -> str:
    """The split that a path below the root belongs to; "train" where none is named."""
    return next((_SPLIT_WORDS[p.lower()] for p in parts if p.lower() in _SPLIT_WORDS), TRAIN)


def _cut_off(text: str) -> bool:
    """Whether the last line is half a row: without a line end, and no JSON."""
    if text.endswith("\n") or not text:
        return False
    try:
        json.loads(text[text.rfind("\n") + 1 :])
    except (ValueError, RecursionError):
        return True
    return False


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            return row
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"row {number} of '{path.parent.name}/{path.name}' is no JSON object: correct it, or remove the row.")


def _labelled(root: Path, metadata: Path, table: list[dict[str, Any]]) -> list[Row]:
    """Rows of one metadata file; file names that lead out of the folder are left out."""
    below, rows = metadata.parent.relative_to(root), []
    for given in table:
        name = str(given[FILE_NAME]).replace("\\", "/").removeprefix("./")
        if not stays_below(name):
            continue
        file = PurePosixPath(below.as_posix(), name)
        labels = {k: v.strip() for k, v in given.items() if k not in NO_ATTRIBUTE and isinstance(v, str) and v.strip()}
        origin = given.get(ORIGIN)
        rows.append(Row(str(file), split_of(file.parts[:-1]), labels, origin if origin in ORIGINS else REAL, str(given.get(SOURCE) or "")))
    return rows


def _by_folder(root: Path) -> list[Row]:
    """Pictures without metadata: the folder that a picture lies in is its class."""
    rows = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in PICTURES):
        parts = path.relative_to(root).parts
        if _hidden(Path(*parts)) or len(parts) < 2 or parts[-2].lower() in _SPLIT_WORDS:
            continue
        rows.append(Row("/".join(parts), split_of(parts[:-2]), {FOLDER_LABEL: parts[-2]}, REAL))
    return rows


def _attributes(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Columns with two or more, and not too many, different values; classes in alphabetical order."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.labels.items():
            values.setdefault(key, set()).add(value)
    return {k: tuple(sorted(v)) for k, v in values.items() if 2 <= len(v) <= MOST_CLASSES}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
