"""Labels of images: class probabilities per attribute, whatever they come from, and the CSV files that hold them.

A label file has a header ``file,ATTRIBUTE,...`` with class names in the cells, or ``file,ATTRIBUTE:CLASS,...`` with probabilities. Labels
say how something looks in a picture; they say nothing of who a person is.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import torch
from torch import Tensor

from ...metrics.fairness import UNSURE_BELOW
from ...models.files import write_text
from .label_text import REST, ClassSpec

FILE = "file"


class HasFile(Protocol):
    """Anything with a file name: entries of a feature set."""

    @property
    def file(self) -> str:
        """Name of the image file."""


@dataclass(frozen=True)
class LabelSet:
    """Class probabilities of N images; the content of the socket EQUIPOISE_LABELS.

    Raises ValueError where shapes do not fit, a file is named twice, or a row is not finite, negative or all zero.
    """

    attributes: dict[str, tuple[str, ...]]
    """Attribute -> K class names."""
    files: tuple[str, ...]
    """N different file names."""
    probabilities: dict[str, Tensor]
    """Attribute -> float32 [N, K] on the CPU, not negative; each row is divided by its sum."""
    sources: dict[str, str] = field(default_factory=dict)
    """Attribute -> where its labels come from, in words."""

    def __post_init__(self) -> None:
        if len(set(self.files)) < len(self.files):
            twice = next(f for i, f in enumerate(self.files) if f in self.files[:i])
            raise ValueError(f"the image '{twice}' is labelled twice: keep one of its labels.")
        if set(self.attributes) != set(self.probabilities):
            raise ValueError(f"labels name the attributes {sorted(self.attributes)} and hold {sorted(self.probabilities)}: make them anew.")
        with torch.inference_mode(False):  # a host makes labels in that mode, and a trainer could not use its tensors
            tables = {a: self.probabilities[a].detach().clone().float().cpu() for a in self.attributes}
        for attribute, classes in self.attributes.items():
            p = tables[attribute]
            if tuple(p.shape) != (len(self.files), len(classes)) or len(set(classes)) < len(classes):
                raise ValueError(
                    f"the labels of '{attribute}' have shape {list(p.shape)}; expected one row for each of {len(self.files)} images and "
                    f"one column for each of {len(classes)} different classes."
                )
            bad = ~torch.isfinite(p).all(1) | (p < 0).any(1) | (p.sum(1) <= 0)
            if bad.any():
                name = self.files[int(bad.nonzero()[0])]
                raise ValueError(
                    f"the labels of '{attribute}' are no probabilities for {int(bad.sum())} image(s), the first is '{name}': expected "
                    "numbers of 0 or more, not all 0; check their source."
                )
            p /= p.sum(1, keepdim=True)
        object.__setattr__(self, "probabilities", tables)

    def unsure(self, attribute: str) -> Tensor:
        """Return the images for which no class has a probability of 0.8: bool [N]."""
        return self.probabilities[attribute].amax(1) < UNSURE_BELOW

    def counts(self, attribute: str) -> tuple[int, ...]:
        """Count the images by their most probable class."""
        k = len(self.attributes[attribute])
        return tuple(torch.bincount(self.probabilities[attribute].argmax(1), minlength=k).tolist())

    def lines(self) -> str:
        """Describe what is labelled, a line per attribute."""
        texts = []
        for attribute, classes in self.attributes.items():
            n = max(1, len(self.files))
            shares = ", ".join(f"{c} {k / n:.1%} ({k})" for c, k in zip(classes, self.counts(attribute), strict=True))
            source = f" ({self.sources[attribute]})" if attribute in self.sources else ""
            texts.append(f"{attribute}{source}: {shares}; unsure {int(self.unsure(attribute).sum()) / n:.1%}")
        return "\n".join(texts)

    def only(self, attributes: Sequence[str]) -> LabelSet:
        """Return the labels of these attributes alone.

        Raises ValueError for one that is not there.
        """
        for attribute in attributes:
            if attribute not in self.attributes:
                raise ValueError(f"nothing is labelled with '{attribute}'; labelled are: {', '.join(self.attributes)}.")
        return LabelSet(
            {a: self.attributes[a] for a in attributes},
            self.files,
            {a: self.probabilities[a] for a in attributes},
            {a: self.sources[a] for a in attributes if a in self.sources},
        )


def for_entries(
    labels: LabelSet, entries: Sequence[HasFile], attributes: Sequence[str] = (), every_class: bool = True, ignore_others: bool = False
) -> dict[str, Tensor]:
    """Return the labels in the order of a feature set's entries.

    attribute -> float32 [N, K].

    Files are matched by their whole name, or by the last part of it where that names one image only ("images/7.png" and "7.png").
    every_class: insist that every class is the most probable one of at least one image, which training needs. ignore_others: leave out
    labels for images that are not in the set, instead of raising.

    Raises ValueError for an unknown attribute, images without a label, labels for images that are not in the set, and a class without an
    example.
    """
    chosen = labels.only(attributes or tuple(labels.attributes))
    rows = _rows(labels.files, [e.file for e in entries], ignore_others)
    with torch.inference_mode(False):
        tables = {a: p[rows.clone()] for a, p in chosen.probabilities.items()}
    if every_class:
        check_every_class({a: chosen.attributes[a] for a in tables}, tables)
    return tables


def _rows(labelled: Sequence[str], wanted: Sequence[str], ignore_others: bool) -> Tensor:
    """Find the row of every wanted file among the labelled ones."""
    exact = {_plain(f): i for i, f in enumerate(labelled)}
    last = _unique_last_parts(labelled)
    wanted_last = _unique_last_parts(wanted)
    rows, missing = [], []
    for name in wanted:
        row = exact.get(_plain(name))
        part = PurePosixPath(_plain(name)).name
        if row is None and part in wanted_last:
            row = last.get(part)
        if row is None:
            missing.append(name)
        else:
            rows.append(row)
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(wanted)} images of the set have no label, the first is '{missing[0]}': label them, or record anew."
        )
    others = sorted(set(range(len(labelled))) - set(rows))
    if others and not ignore_others:
        raise ValueError(
            f"{len(others)} labels are for images that are not in the set, the first is '{labelled[others[0]]}': use the labels of this "
            "set, or remove those rows."
        )
    return torch.tensor(rows, dtype=torch.long)


def _plain(name: str) -> str:
    return str(PurePosixPath(name.strip().replace("\\", "/")))


def _unique_last_parts(names: Sequence[str]) -> dict[str, int]:
    row_of: dict[str, int] = {}
    twice = set()
    for i, name in enumerate(names):
        part = PurePosixPath(_plain(name)).name
        if part in row_of:
            twice.add(part)
        row_of[part] = i
    return {part: i for part, i in row_of.items() if part not in twice}


def check_every_class(attributes: Mapping[str, Sequence[str]], probabilities: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a class is not the most probable one of any image."""
    for attribute, p in probabilities.items():
        present = set(p.argmax(1).tolist())
        for i, name in enumerate(attributes[attribute]):
            if i not in present:
                raise ValueError(
                    f"the class '{name}' of '{attribute}' has no example among {len(p)} images: record more images, use prompts that "
                    "bring it out, or merge it with another class."
                )


def joined(first: LabelSet | None, second: LabelSet) -> LabelSet:
    """Join the attributes of two label sets over the files of the second.

    Raises ValueError where both label one attribute, or the images differ.
    """
    if first is None:
        return second
    both = [a for a in first.attributes if a in second.attributes]
    if both:
        raise ValueError(f"'{both[0]}' is labelled by both sources: give one of them another attribute name, or leave one out.")
    if len(first.files) != len(second.files):
        raise ValueError(f"the labels to join are for {len(first.files)} and {len(second.files)} images: use labels of the same set.")
    rows = _rows(first.files, second.files, ignore_others=False)
    return LabelSet(
        {**first.attributes, **second.attributes},
        second.files,
        {**{a: p[rows] for a, p in first.probabilities.items()}, **second.probabilities},
        {**first.sources, **second.sources},
    )


def merged(labels: LabelSet, groups: ClassSpec) -> LabelSet:
    """Merge classes into fewer ones.

    The probability of a group is the sum of its members' probabilities. Attributes that are not named stay as they are.

    Attributes that are not named stay as they are.

    groups: see :mod:`.label_text`; the members are the attribute's present classes. Raises ValueError for an unknown attribute or class, a
    class in two groups, or one in none (``...`` takes them all).
    """
    attributes, tables = dict(labels.attributes), dict(labels.probabilities)
    for attribute, wanted in groups.items():
        labels.only([attribute])
        old = labels.attributes[attribute]
        used: dict[str, str] = {}
        for name, members in wanted.items():
            for member in members:
                if member == REST:
                    continue
                if member not in old:
                    raise ValueError(f"'{attribute}' has no class '{member}' to put in '{name}'; it has: {', '.join(old)}.")
                if member in used:
                    raise ValueError(f"the class '{member}' of '{attribute}' is in two groups, {used[member]} and {name}: keep one.")
                used[member] = name
        rest = [c for c in old if c not in used]
        taker = next((n for n, members in wanted.items() if REST in members), None)
        if rest and taker is None:
            raise ValueError(f"the class '{rest[0]}' of '{attribute}' is in no group: add it to one, or give one the rest, old={REST}.")
        if taker is not None:
            used.update(dict.fromkeys(rest, taker))
        empty = [n for n in wanted if n not in used.values()]
        if empty:
            raise ValueError(f"the group '{empty[0]}' of '{attribute}' is left empty, as no class remains for it: remove it.")
        columns = [[i for i, c in enumerate(old) if used[c] == name] for name in wanted]
        tables[attribute] = torch.stack([labels.probabilities[attribute][:, c].sum(1) for c in columns], dim=1)
        attributes[attribute] = tuple(wanted)
    return LabelSet(attributes, labels.files, tables, dict(labels.sources))


def read_csv(path: str | os.PathLike[str], classes: Mapping[str, Sequence[str]] | None = None, attributes: Sequence[str] = ()) -> LabelSet:
    """Read a label file (comma, semicolon or tab between cells; UTF-8).

    classes: attribute -> class names, which fixes their order and refuses all others; else they stand in order of first appearance.
    attributes: which to read; none means those of ``classes``, or all. Raises ValueError where the file does not have an
    attribute, a class is unknown, a probability is no number, a cell is empty or an image comes twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path.name}' is not UTF-8 text ({error.reason}): save it again as CSV, UTF-8.") from error
    if "\0" in text:
        raise ValueError(f"'{path.name}' is no text: it holds NUL characters, so save it again as CSV, UTF-8.")
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        header = [(h or "").strip() for h in reader.fieldnames or []]
    except csv.Error as error:
        raise ValueError(f"'{path.name}' cannot be read as a table ({error}): save it again as CSV, UTF-8.") from error
    reader.fieldnames = header
    if FILE not in header:
        raise ValueError(f"'{path.name}' is no label file: its header is '{head.strip()[:80]}', expected file,ATTRIBUTE,...")
    try:
        rows = [r for r in reader if any(v and str(v).strip() for v in r.values() if isinstance(v, str))]
    except csv.Error as error:
        raise ValueError(f"'{path.name}' cannot be read as a table ({error}): save it again as CSV, UTF-8.") from error
    if not rows:
        raise ValueError(f"'{path.name}' has a header and no rows: add a row per image.")
    ragged = next((n for n, r in enumerate(rows, 2) if None in r or any(v is None for v in r.values())), None)
    if ragged is not None:
        raise ValueError(f"row {ragged} of '{path.name}' has another number of cells than its header: correct it.")
    known = {a: tuple(c) for a, c in (classes or {}).items()}
    there = list(dict.fromkeys(h.split(":", 1)[0] for h in header if h and h != FILE))
    chosen = list(attributes) or list(known) or there
    for attribute in chosen:
        if attribute not in there:
            raise ValueError(f"'{path.name}' has no column '{attribute}'; it has {', '.join(there) or 'none'}.")
    if not chosen:
        raise ValueError(f"'{path.name}' has file names and no attribute: add a column per attribute.")
    columns = {a: _columns(path.name, rows, header, a, known.get(a)) for a in dict.fromkeys(chosen)}
    return LabelSet(
        {a: c for a, (c, _) in columns.items()},
        tuple(r[FILE].strip() for r in rows),
        {a: p for a, (_, p) in columns.items()},
        dict.fromkeys(columns, path.name),
    )


def _columns(
    name: str, rows: list[dict[str, str]], header: list[str], attribute: str, known: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Tensor]:
    """Read the classes and probabilities [N, K] of one attribute."""
    columns = [h for h in header if h.startswith(f"{attribute}:")]
    if columns:
        met = tuple(h.split(":", 1)[1] for h in columns)
        classes = known or met
        _check_known(name, attribute, met, classes)
        values = torch.zeros(len(rows), len(classes))
        for n, row in enumerate(rows):
            for column, label in zip(columns, met, strict=True):
                values[n, classes.index(label)] = _number(name, n, column, row[column])
        return classes, values
    cells = [r[attribute].strip() for r in rows]
    if "" in cells:
        raise ValueError(f"row {cells.index('') + 2} of '{name}' has no label for '{attribute}': fill it in, or remove the row.")
    classes = known or tuple(dict.fromkeys(cells))
    _check_known(name, attribute, cells, classes)
    if len(classes) < 2:
        raise ValueError(f"'{name}' labels every image as '{classes[0]}' of '{attribute}': at least two classes are needed.")
    return classes, torch.eye(len(classes))[torch.tensor([classes.index(c) for c in cells])]


def _check_known(name: str, attribute: str, met: Sequence[str], classes: Sequence[str]) -> None:
    unknown = next((c for c in met if c not in classes), None)
    if unknown is not None:
        those = ", ".join(classes)
        raise ValueError(f"'{name}' labels '{attribute}' as '{unknown}', which is none of {those}: correct it, or add the class.")


def _number(name: str, row: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"row {row + 2} of '{name}' has '{cell}' for '{column}': expected a probability, a number of 0 or more.")
    return value


def read_csv_as(path: str | os.PathLike[str], spec: ClassSpec) -> LabelSet:
    """Read a label file with the user's own classes.

    The members of a class are names in the file (:mod:`.label_text`).

    Raises ValueError as :func:`read_csv` does, also for a name in the file that is no class's member.
    """
    known = {a: [m for members in named.values() for m in members] for a, named in spec.items()}
    open_ended = [a for a, names in known.items() if REST in names]
    labels = read_csv(path, {a: list(dict.fromkeys(n)) for a, n in known.items() if a not in open_ended}, tuple(spec))
    return merged(labels, spec) if open_ended or any(m != (c,) for named in spec.values() for c, m in named.items()) else labels


def write_csv(labels: LabelSet, path: str | os.PathLike[str]) -> None:
    """Write a label file with a column per class, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([FILE, *(f"{a}:{c}" for a, classes in labels.attributes.items() for c in classes)])
    for i, name in enumerate(labels.files):
        writer.writerow([name, *(f"{v:.6f}" for a in labels.attributes for v in labels.probabilities[a][i].tolist())])
    write_text(path, text.getvalue())
