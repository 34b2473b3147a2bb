"""Train Attribute Classifier: data sets to examples, a training with the host's progress and device, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import folder_paths
import torch

from ...methods.data.classifier_training import (
    UNKNOWN,
    ClassifierSettings,
    Examples,
    Trained,
    save_trained,
    train_classifier,
    training_name,
)
from ...methods.data.image_folder import TEST, VALIDATION, ImageFolder, Row, joined_folders
from ..core.files import FileKind
from ..core.progress import host_progress, training_device
from ..labels.classifier import HostClassifier, load_host_classifier
from .datasets import load_examples

CLASSIFIER_FILES = FileKind("attribute_classifiers", "a classifier", save_trained)
HELD_OUT = 0.15


@dataclass(frozen=True)
class Outcome:
    """``classifier``: loaded from its file; ``lines``: a report."""

    made: Trained
    classifier: HostClassifier
    path: Path
    lines: list[str]


def train_and_save(
    folders: Sequence[ImageFolder], attributes: Sequence[str], settings: ClassifierSettings, name: str, overwrite: bool
) -> Outcome:
    """Train on one or two sets, from the checkpoint of the same training where there is one, and save. Images of the split "test" take no
    part; those of "validation", or 15% of the others where there are none, are held out.

    Raises ValueError, in a sentence, for a bad name or one that is taken, where the sets cannot be trained on, and where a folder cannot
    be written; the host's exception where the user interrupts.
    """
    path = CLASSIFIER_FILES.path(name)
    classes = joined_folders([f.only(attributes) if attributes else f for f in folders])
    parts = [load_examples(f, classes, settings.image_size) for f in map(_trained_on, folders)]
    rows = [r for f in map(_trained_on, folders) for r in f.rows]
    examples = _joined(parts)
    held = held_out_rows(rows, examples, settings.seed)
    train, beside = _picked(examples, ~held), _picked(examples, held)
    checkpoints = Path(folder_paths.get_output_directory()) / "equipoise" / "learning"
    if path.exists() and not overwrite and not (checkpoints / training_name(train, settings)).is_dir():
        raise CLASSIFIER_FILES.taken(path)  # before the work: nothing of this training was ever done, so the file is another one
    try:
        made = train_classifier(train, settings, beside, checkpoints, host_progress(), training_device())
        saved = CLASSIFIER_FILES.write(made, name, overwrite)
    except OSError as error:
        raise ValueError(
            f"the training cannot be written to output/equipoise/learning or {CLASSIFIER_FILES.folder} ({error.strerror or error}): free "
            "space, or change the rights of these folders."
        ) from error
    lines = [*_lines(made), f"saved: {CLASSIFIER_FILES.saved(saved)}"]
    return Outcome(made, load_host_classifier(saved.name), saved, lines)


def held_out_rows(rows: Sequence[Row], examples: Examples, seed: int) -> torch.Tensor:
    """bool [N]: images of the split "validation"; without any, 15% of the images that share all their labels, chosen by the seed."""
    named = torch.tensor([r.split == VALIDATION for r in rows])
    if named.any():
        return named
    held = torch.zeros(len(rows), dtype=torch.bool)
    cell = torch.zeros(len(rows), dtype=torch.long)
    for attribute, labels in examples.labels.items():
        cell = cell * (len(examples.attributes[attribute]) + 1) + labels - UNKNOWN
    generator = torch.Generator().manual_seed(seed)
    for c in cell.unique().tolist():
        there = (cell == c).nonzero().flatten()
        chosen = torch.randperm(len(there), generator=generator)[: int(len(there) * HELD_OUT + 0.5)]
        held[there[chosen]] = len(there) > 1
    return held


def _trained_on(folder: ImageFolder) -> ImageFolder:
    rows = tuple(r for r in folder.rows if r.split != TEST)
    if not rows:
        raise ValueError(f"all images of '{folder.name}' are of the split 'test', which a training does not see: save some to 'train'.")
    return replace(folder, rows=rows)


def _joined(parts: Sequence[Examples]) -> Examples:
    labels = {a: torch.cat([p.labels[a] for p in parts]) for a in parts[0].labels}
    images, generated = (torch.cat([getattr(p, k) for p in parts]) for k in ("images", "generated"))
    return Examples(parts[0].attributes, images, labels, generated)


def _picked(examples: Examples, rows: torch.Tensor) -> Examples:
    with torch.inference_mode(False):
        labels = {a: y[rows].clone() for a, y in examples.labels.items()}
        return Examples(examples.attributes, examples.images[rows].clone(), labels, examples.generated[rows].clone())


def _lines(made: Trained) -> list[str]:
    info, s = made.info, made.info["settings"]
    real = info["images"] - info["generated"]
    lines = [
        f"trained on {info['images']} images ({real} real, {info['generated']} generated), {info['held_out']} held out; "
        f"{s['steps']} steps of {s['batch']}, {info['seconds']:g} s"
    ]
    for attribute, counts in info["counts"].items():
        seen = made.held_out.get(attribute)
        said = ", ".join(f"{c} {n}" for c, n in counts.items())
        if not seen:
            lines.append(f"{attribute} ({said}): no image was held out to say how well it is read")
            continue
        recall = ", ".join(f"{c} {'-' if r is None else f'{r:.1%}'}" for c, r in seen["by_class"].items())
        lines.append(f"{attribute} ({said}): {seen['accuracy']:.1%} of {seen['n']} held-out images read right ({recall})")
    return lines
