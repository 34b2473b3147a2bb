"""Classifier Fairness: measure what a classifier reads in labelled images, by groups of another attribute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import comfy.model_management
import torch
from torch import Tensor

from ...methods.datasets.image_folder import ImageFolder, Row
from ...methods.labels.labels import LabelSet
from ...metrics.classifier_fairness import ClassifierFairness, measure_classifier
from ..labels.classifier import HostClassifier
from .datasets import in_batches


def fairness_on_dataset(
    classifier: HostClassifier, folder: ImageFolder, attribute: str, group: str
) -> tuple[ClassifierFairness, list[str]]:
    """Measure all rows of a set that have both labels; return figures and notes. Interruptible.

    Raises ValueError if attribute, group or classes do not fit classifier and set.
    """
    chosen = folder.only([attribute, group])
    classes = _known(classifier, attribute, chosen.attributes[attribute], f"the data set '{folder.name}'")
    rows = [r for r in chosen.rows if attribute in r.labels and group in r.labels]
    if not rows:
        raise ValueError(f"no image of '{folder.name}' has labels of both '{attribute}' and '{group}': choose others.")
    truth = [classes.index(r.labels[attribute]) for r in rows]
    groups = [chosen.attributes[group].index(r.labels[group]) for r in rows]
    labelled = ImageFolder(folder.root, chosen.attributes, tuple(rows))
    read = torch.cat([_read(classifier, images, attribute) for _, images in _interruptible(in_batches(labelled))])
    notes = [f"{len(chosen.rows) - len(rows)} images were left out, because they lack a label"] if len(rows) < len(chosen.rows) else []
    if any(r.source == f"classifier {classifier.name}" for r in rows):
        notes.append("this classifier made these labels: the figures say how far it agrees with itself, not how well it reads")
    return measure_classifier(truth, read, groups, classes, chosen.attributes[group]), notes


def fairness_on_images(
    classifier: HostClassifier, images: Tensor, labels: LabelSet, attribute: str, group: str
) -> tuple[ClassifierFairness, list[str]]:
    """Measure a classifier's errors by group on labelled images [N, H, W, C].

    The most probable class counts.
    """
    if len(labels.files) != len(images):
        raise ValueError(f"there are {len(labels.files)} labels for {len(images)} images: connect the labels of these images, in order.")
    chosen = labels.only([attribute, group])
    classes = _known(classifier, attribute, chosen.attributes[attribute], "the labels")
    order = torch.tensor([classes.index(c) for c in chosen.attributes[attribute]])
    truth, groups = order[chosen.probabilities[attribute].argmax(1)], chosen.probabilities[group].argmax(1)
    unsure = int((chosen.unsure(attribute) | chosen.unsure(group)).sum())
    notes = [f"{unsure} images have an unsure label, which counts as its most probable class"] if unsure else []
    if f"classifier {classifier.name}" in (labels.sources.get(attribute), labels.sources.get(group)):
        notes.append("this classifier made these labels: the figures say how far it agrees with itself, not how well it reads")
    return measure_classifier(truth, _read(classifier, images, attribute), groups, classes, chosen.attributes[group]), notes


def _known(classifier: HostClassifier, attribute: str, classes: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the classifier's classes.

    Raises ValueError if it does not know the attribute, or a class of it.
    """
    if attribute not in classifier.attributes:
        raise ValueError(f"the classifier '{classifier.name}' does not read '{attribute}'; it reads: {', '.join(classifier.attributes)}.")
    known = classifier.attributes[attribute]
    unknown = next((c for c in classes if c not in known), None)
    if unknown is not None:
        raise ValueError(
            f"{what} has the class '{unknown}' of '{attribute}', which the classifier '{classifier.name}' does not know; it knows: "
            f"{', '.join(known)}. Rename the classes, or use a classifier that was trained on them."
        )
    return known


def _read(classifier: HostClassifier, images: Tensor, attribute: str) -> Tensor:
    if not torch.isfinite(images).all():
        raise ValueError("images hold values that are not finite: their VAE or model broke down, often in half precision.")
    return classifier.probabilities(images)[attribute].argmax(-1)


def _interruptible(batches: Iterator[tuple[list[Row], Tensor]]) -> Iterator[tuple[list[Row], Tensor]]:
    for batch in batches:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield batch
