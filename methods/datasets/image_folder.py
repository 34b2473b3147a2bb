"""Read labelled images: a Hugging Face ``imagefolder``, with a folder per split and a row per picture in ``metadata.jsonl``.

Pictures may lie in a folder per class. :mod:`.image_folder_writer` writes ours. Labels say how something looks in a picture; they say
nothing about who a person is.
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
"""Most classes of an attribute: a column with more different words is a caption or a name."""
NO_ATTRIBUTE = {*OWN_COLUMNS, "text", "caption", "prompt", "seed"}


@dataclass(frozen=True)
class Row:
    """Hold one picture of a data set."""

    file: str
    """Its file, relative to the root, with forward slashes."""
    split: str
    """Its split, one of ``SPLITS``."""
    labels: dict[str, str]
    """Attribute -> class name."""
    origin: str
    """``REAL`` or ``GENERATED``."""
    source: str = ""
    """Source of the labels, in words; "" if it is not known."""


@dataclass(frozen=True)
class ImageFolder:
    """Hold a data set, as the socket EQUIPOISE_DATASET carries it."""

    root: Path
    """Its folder."""
    attributes: dict[str, tuple[str, ...]]
    """Attribute -> names of its classes."""
    rows: tuple[Row, ...]
    """Its pictures."""
    notes: tuple[str, ...] = ()
    """Notes on rows that were left out when it was read."""

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return self.root.name

    def of_split(self, split: str) -> ImageFolder:
        """Select the rows of one split, or all for "all".

        Raises ValueError if it has none.
        """
        rows = self.rows if split == "all" else tuple(r for r in self.rows if r.split == split)
        if not rows:
            present = ", ".join(dict.fromkeys(r.split for r in self.rows)) or "nothing"
            raise ValueError(f"the data set '{self.name}' has no images in the split '{split}'; it has: {present}.")
        return replace(self, rows=rows)

    def only(self, attributes: Sequence[str]) -> ImageFolder:
        """Select attributes (none: all). Raises ValueError for one that it does not have."""
        chosen = tuple(dict.fromkeys(attributes)) or tuple(self.attributes)
        unknown = next((a for a in chosen if a not in self.attributes), None)
        if unknown is not None:
            raise ValueError(f"the data set '{self.name}' has no labels of '{unknown}'; it has: {', '.join(self.attributes) or 'none'}.")
        return replace(self, attributes={a: self.attributes[a] for a in chosen})

    def counts(self, attribute: str) -> dict[str, int]:
        """Count the images of every class."""
        counted = Counter(r.labels.get(attribute) for r in self.rows)
        return {c: counted[c] for c in self.attributes[attribute]}

    def indices(self, attribute: str) -> list[int]:
        """Return the class index of every row; -1 without a label of the attribute."""
        index = {c: i for i, c in enumerate(self.attributes[attribute])}
        return [index.get(r.labels.get(attribute, ""), -1) for r in self.rows]

    def text(self) -> str:
        """Describe the data set in lines."""
        splits, origins = Counter(r.split for r in self.rows), Counter(r.origin for r in self.rows)
        by_split = counts_text({s: splits[s] for s in SPLITS if splits[s]})
        lines = [f"'{self.name}': {len(self.rows)} images ({by_split}; {counts_text(origins)})"]
        lines += [f"{a}: {counts_text(self.counts(a))}" for a in self.attributes]
        return "\n".join([*lines, *self.notes])


def counts_text(counts: Mapping[str, int]) -> str:
    """Put counts into words."""
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"


def open_image_folder(root: str | os.PathLike[str]) -> ImageFolder:
    """Read a data set.

    It may be one of ours, any other ``imagefolder`` with metadata, or pictures in a folder per class.

    Of other metadata, text columns of at most 64 different values are attributes. Raises ValueError if there is no such folder, no picture
    in it, metadata that cannot be read, or no label.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"there is no data set '{root.name}': save one first, or choose another.")
    facts = read_facts(root)
    files = [f for name in (METADATA, METADATA_CSV) for f in sorted(root.rglob(name)) if not _hidden(f.relative_to(root))]
    tables = [(f, read_metadata_rows(f)) for f in files]
    rows = [row for f, table in tables for row in _labelled(root, f, table)] if files else _by_folder(root)
    present = [r for r in rows if (root / r.file).is_file()]
    notes = [f"{len(rows) - len(present)} rows were left out, because their pictures are missing"] if len(present) < len(rows) else []
    if not present:
        raise ValueError(f"the data set '{root.name}' holds no labelled pictures: save some first, or choose another.")
    attributes = {a: tuple(c) for a, c in facts["attributes"].items()} if facts else _attributes(present)
    if not attributes:
        raise ValueError(
            f"the data set '{root.name}' has pictures and no labels: expected columns of class names in {METADATA}, or a folder per class."
        )
    return ImageFolder(root, attributes, tuple(present), tuple(notes))


def read_facts(root: Path) -> dict[str, Any] | None:
    """Read ``dataset.json``; None without one.

    Raises ValueError if it is not ours, or of another version.
    """
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
    """Read the rows of a metadata.jsonl or metadata.csv.

    A last line that was cut off is left out. Raises ValueError for a bad row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = list(csv.DictReader(io.StringIO(text, newline=""))) if path.name == METADATA_CSV else []
    except (UnicodeDecodeError, csv.Error) as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"'{path.parent.name}/{path.name}' is not text of its kind in UTF-8 ({reason}): copy it again.") from error
    if path.name == METADATA_CSV:
        rows: list[dict[str, Any]] = table
    else:
        complete = text[: text.rfind("\n") + 1] if _cut_off(text) else text
        rows = [_parsed(path, n, line) for n, line in enumerate(complete.splitlines(), 1) if line.strip()]
    wrong = next((n for n, r in enumerate(rows, 1) if not isinstance(r.get(FILE_NAME), str)), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} of '{path.parent.name}/{path.name}' has no {FILE_NAME}: correct the row, or remove it.")
    return rows


def joined_folders(folders: Sequence[ImageFolder]) -> dict[str, tuple[str, ...]]:
    """Find the attributes that several data sets share, with their classes.

    The classes of the first data set come first.

    Raises ValueError if they have none in common.
    """
    common = [a for a in folders[0].attributes if all(a in f.attributes for f in folders)]
    if not common:
        have = "; ".join(f"'{f.name}': {', '.join(f.attributes)}" for f in folders)
        raise ValueError(f"the data sets label no attribute in common ({have}): give their columns the same names.")
    return {a: tuple(dict.fromkeys(c for f in folders for c in f.attributes[a])) for a in common}


def split_of(parts: Sequence[str]) -> str:
    """Return the split that a path below the root belongs to.

    It is "train" if the path names none.
    """
    return next((_SPLIT_WORDS[p.lower()] for p in parts if p.lower() in _SPLIT_WORDS), TRAIN)


def _cut_off(text: str) -> bool:
    """Return whether the last line is half a row.

    Such a line has no line end and is not JSON.
    """
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
    raise ValueError(f"row {number} of '{path.parent.name}/{path.name}' is not a JSON object: correct the row, or remove it.")


def _labelled(root: Path, metadata: Path, table: list[dict[str, Any]]) -> list[Row]:
    """Read the rows of one metadata file.

    File names that lead out of the folder are left out.
    """
    below, rows = metadata.parent.relative_to(root), []
    for entry in table:
        name = str(entry[FILE_NAME]).replace("\\", "/").removeprefix("./")
        if not stays_below(name):
            continue
        file = PurePosixPath(below.as_posix(), name)
        labels = {k: v.strip() for k, v in entry.items() if k not in NO_ATTRIBUTE and isinstance(v, str) and v.strip()}
        origin = entry.get(ORIGIN)
        rows.append(Row(str(file), split_of(file.parts[:-1]), labels, origin if origin in ORIGINS else REAL, str(entry.get(SOURCE) or "")))
    return rows


def _by_folder(root: Path) -> list[Row]:
    """Read pictures without metadata: a picture's folder is its class."""
    rows = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in PICTURES):
        parts = path.relative_to(root).parts
        if _hidden(Path(*parts)) or len(parts) < 2 or parts[-2].lower() in _SPLIT_WORDS:
            continue
        rows.append(Row("/".join(parts), split_of(parts[:-2]), {FOLDER_LABEL: parts[-2]}, REAL))
    return rows


def _attributes(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Find the columns that are attributes.

    They have two or more, and not too many, different values. Classes are in alphabetical order.
    """
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.labels.items():
            values.setdefault(key, set()).add(value)
    return {k: tuple(sorted(v)) for k, v in values.items() if 2 <= len(v) <= MOST_CLASSES}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
