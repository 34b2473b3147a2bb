"""Train Attribute Classifier: turn data sets into examples, train with the host's progress and device, and write the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import folder_paths
import torch

from ...methods.datasets.classifier_training import (
    UNKNOWN,
    ClassifierSettings,
    Examples,
    Trained,
    save_trained,
    train_classifier,
    training_name,
)
from ...methods.datasets.image_folder import TEST, VALIDATION, ImageFolder, Row, joined_folders
from ..core.files import FileKind
from ..core.progress import host_progress, training_device
from ..labels.classifier import HostClassifier, load_host_classifier
from .datasets import load_examples

CLASSIFIER_FILES = FileKind("attribute_classifiers", "a classifier", save_trained)
HELD_OUT = 0.15
"""Share of the images that is held out, if no image is of the split "validation"."""


@dataclass(frozen=True)
class TrainedClassifier:
    """Hold the result of a training."""

    trained: Trained
    """The training's figures and log."""
    classifier: HostClassifier
    """The classifier, loaded from its file."""
    path: Path
    """The file."""
    lines: list[str]
    """Lines of the report."""


def train_and_save_classifier(
    folders: Sequence[ImageFolder], attributes: Sequence[str], settings: ClassifierSettings, name: str, overwrite: bool
) -> TrainedClassifier:
    """Train a classifier on one or two sets, and save it.

    A checkpoint of the same training is resumed if there is one.

    Images of the split "test" take no part. Images of "validation" are held out, or 15% of the others if there are none. Raises ValueError
    for a bad name or one that is taken, and if the sets cannot be trained on or a folder cannot be written; the host's exception if the
    user interrupts.
    """
    path = CLASSIFIER_FILES.path(name)
    classes = joined_folders([f.only(attributes) if attributes else f for f in folders])
    parts = [load_examples(f, classes, settings.image_size) for f in map(_trained_on, folders)]
    rows = [r for f in map(_trained_on, folders) for r in f.rows]
    examples = _joined(parts)
    held_out = held_out_rows(rows, examples, settings.seed)
    train, test = _picked(examples, ~held_out), _picked(examples, held_out)
    checkpoints = Path(folder_paths.get_output_directory()) / "equipoise" / "learning"
    if path.exists() and not overwrite and not (checkpoints / training_name(train, settings)).is_dir():
        raise CLASSIFIER_FILES.name_taken(path)  # before the work: this training never began, so the file is another one
    try:
        trained = train_classifier(train, settings, test, checkpoints, host_progress("Train Attribute Classifier"), training_device())
        saved = CLASSIFIER_FILES.write(trained, name, overwrite)
    except OSError as error:
        raise ValueError(
            f"the training cannot be written to output/equipoise/learning or {CLASSIFIER_FILES.folder} ({error.strerror or error}): free "
            "space, or change the rights of these folders."
        ) from error
    lines = [*_lines(trained), f"saved: {CLASSIFIER_FILES.saved_text(saved)}"]
    return TrainedClassifier(trained, load_host_classifier(saved.name), saved, lines)


def held_out_rows(rows: Sequence[Row], examples: Examples, seed: int) -> torch.Tensor:
    """Mark the images [N] to hold out.

    Those of the split "validation", or else 15% of the images that share all their labels, by the seed.
    """
    named = torch.tensor([r.split == VALIDATION for r in rows])
    if named.any():
        return named
    held_out = torch.zeros(len(rows), dtype=torch.bool)
    cell = torch.zeros(len(rows), dtype=torch.long)
    for attribute, labels in examples.labels.items():
        cell = cell * (len(examples.attributes[attribute]) + 1) + labels - UNKNOWN
    generator = torch.Generator().manual_seed(seed)
    for c in cell.unique().tolist():
        members = (cell == c).nonzero().flatten()
        chosen = torch.randperm(len(members), generator=generator)[: int(len(members) * HELD_OUT + 0.5)]
        held_out[members[chosen]] = len(members) > 1
    return held_out


def _trained_on(folder: ImageFolder) -> ImageFolder:
    rows = tuple(r for r in folder.rows if r.split != TEST)
    if not rows:
        raise ValueError(f"all images of '{folder.name}' are of the split 'test', which training leaves out: save some to 'train'.")
    return replace(folder, rows=rows)


def _joined(parts: Sequence[Examples]) -> Examples:
    labels = {a: torch.cat([p.labels[a] for p in parts]) for a in parts[0].labels}
    images, generated = (torch.cat([getattr(p, k) for p in parts]) for k in ("images", "generated"))
    return Examples(parts[0].attributes, images, labels, generated)


def _picked(examples: Examples, rows: torch.Tensor) -> Examples:
    with torch.inference_mode(False):
        labels = {a: y[rows].clone() for a, y in examples.labels.items()}
        return Examples(examples.attributes, examples.images[rows].clone(), labels, examples.generated[rows].clone())


def _lines(trained: Trained) -> list[str]:
    info, s = trained.info, trained.info["settings"]
    real = info["images"] - info["generated"]
    lines = [
        f"trained on {info['images']} images ({real} real, {info['generated']} generated), {info['held_out']} held out; "
        f"{s['steps']} steps of {s['batch']}, {info['seconds']:g} s"
    ]
    for attribute, counts in info["counts"].items():
        figures = trained.held_out.get(attribute)
        numbers = ", ".join(f"{c} {n}" for c, n in counts.items())
        if not figures:
            lines.append(f"{attribute} ({numbers}): accuracy is not known, because no image was held out")
            continue
        recall = ", ".join(f"{c} {'-' if r is None else f'{r:.1%}'}" for c, r in figures["by_class"].items())
        lines.append(f"{attribute} ({numbers}): {figures['accuracy']:.1%} of {figures['n']} held-out images read right ({recall})")
    return lines
