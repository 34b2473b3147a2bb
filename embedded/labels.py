"""Label files: CSV with ``file,ATTRIBUTE,...`` (class names), or ``file,ATTRIBUTE:CLASS,...`` (probabilities)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def read_labels(path: Path, attribute: str, known: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Classes of an attribute and, by file name, its class probabilities float32 [K] (one-hot for class names).

    ``known`` fixes the order of the classes; otherwise they stand in order of first appearance. Raises ValueError where the file does
    not have the attribute, a class is unknown, or a probability is no number.
    """
    with Path(path).open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        header = reader.fieldnames or []
        rows = list(reader)
    if "file" not in header:
        raise ValueError(f"'{Path(path).name}' is no label file: its header is {','.join(header) or 'empty'}, expected file,{attribute}.")
    columns = [h for h in header if h.startswith(f"{attribute}:")]
    if columns:
        classes = tuple(h.split(":", 1)[1] for h in columns)
        try:
            table = {r["file"]: torch.tensor([float(r[c]) for c in columns]) for r in rows}
        except (TypeError, ValueError) as error:
            raise ValueError(f"'{Path(path).name}': a probability of '{attribute}' is no number ({error}).") from error
        return classes, {f: p / p.sum().clamp(min=1e-12) for f, p in table.items()}
    if attribute not in header:
        raise ValueError(f"'{Path(path).name}' has no column '{attribute}'; it has {', '.join(h for h in header if h != 'file')}.")
    classes = known or tuple(dict.fromkeys(r[attribute] for r in rows))
    unknown = {r[attribute] for r in rows} - set(classes)
    if unknown:
        raise ValueError(f"'{Path(path).name}' labels '{attribute}' as '{unknown.pop()}', which is none of {', '.join(classes)}.")
    eye = torch.eye(len(classes))
    return classes, {r["file"]: eye[classes.index(r[attribute])] for r in rows}


def write_labels(path: Path, files: list[str], probabilities: Mapping[str, Tensor], attributes: Mapping[str, tuple[str, ...]]) -> None:
    """Write class probabilities of every file, a column per class."""
    header = ["file", *(f"{a}:{c}" for a in probabilities for c in attributes[a])]
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        for i, name in enumerate(files):
            writer.writerow([name, *(f"{float(v):.6f}" for a in probabilities for v in probabilities[a][i])])
