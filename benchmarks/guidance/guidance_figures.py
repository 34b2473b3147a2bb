"""Compute the figures of ``bench guidance`` from stored cells: FD, quality and drift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...factory.portraits import ATTRIBUTES, portraits
from ...methods.core.target_text import parse_target
from ...methods.core.targets import TargetDistribution
from ...metrics.drift import drift
from ...metrics.fairness import assigned_hit_rate, joint_probabilities, measure
from ...metrics.frechet import frechet_distance
from ...models.files import read_safetensors, write_safetensors
from ...shipped import weights
from .guidance_cells import TARGETS, Cell
from .targets import DRAWN, DRAWN_SEED, joint_index

Array = NDArray[Any]
COLUMNS = ("fd", "fd_low", "fd_high", "frechet", "drift", "unsure", "seconds_per_image", "peak_mb")
EXCHANGES = 500
"""Number of random exchanges with plain images, to measure the drift that chance alone makes."""


class Reference:
    """Hold drawn portraits in the judge's features, which can be weighted to any target.

    ``folder``: where the features are stored.
    """

    def __init__(self, folder: Path, images: int = DRAWN) -> None:
        path = folder / f"drawn-{images}.safetensors"
        if not path.is_file():
            drawn = portraits(images, DRAWN_SEED)
            features = weights.classifier(weights.JUDGE).embed(drawn.images)
            write_safetensors(path, {"features": features, **{f"label.{a}": drawn.labels[a] for a in ATTRIBUTES}})
        tensors, _ = read_safetensors(path)
        self.features = tensors["features"].double().numpy()
        self.classes = {a: tensors[f"label.{a}"].numpy() for a in ATTRIBUTES}

    def weights(self, target: TargetDistribution) -> Array:
        """Weight the portraits so that their attributes have the target's shares: float64 [M]."""
        cell = joint_index(self.classes, target.attributes)
        shares = np.bincount(cell, minlength=len(target.shares)) / len(cell)
        return np.asarray(target.shares)[cell] / np.maximum(shares[cell], 1e-9)

    def distance(self, features: Array, target: TargetDistribution) -> float:
        """Return the Frechet distance of features [N, D] to the portraits, weighted to a target."""
        return frechet_distance(features.astype(np.float64), self.features, self.weights(target))


class CellData:
    """Read the stored images of a cell, as the judge saw them.

    ``read``: attribute -> the judge's probabilities [N, K]; ``features`` [N, D]; ``cells`` int [N] or None.
    """

    def __init__(self, folder: Path, cell: Cell) -> None:
        tensors, _ = read_safetensors(folder / f"{cell.name}.safetensors")
        self.read = {a: tensors[f"read.{a}"].double().numpy() for a in ATTRIBUTES}
        self.features = tensors["features"].double().numpy()
        self.cells = tensors["cells"].numpy() if "cells" in tensors else None


def fairness(cell: Cell, data: CellData, target_name: str, bootstrap: int = 2000) -> dict[str, Any]:
    """Measure FD of hard counts with its interval, hits and unsure images.

    The interval resamples whole batches if their images depend on each other.
    """
    target = parse_target(TARGETS[target_name], ATTRIBUTES)
    joint = joint_probabilities({a: data.read[a] for a in target.attributes})
    batch = cell.batch if cell.dependent else 1
    report = measure(joint, target.names, target.shares, batch=batch, bootstrap=bootstrap)
    figures = {k: getattr(report, k) for k in ("fd", "fd_low", "fd_high", "noise_floor", "unsure", "n")}
    figures["shares"] = dict(zip(target.names, report.shares, strict=True))
    figures["hit"] = None if data.cells is None else assigned_hit_rate(joint, data.cells)
    return figures


def cell_figures(cell: Cell, target_name: str, sampled: Mapping[str, Any], folder: Path, reference: Reference) -> dict[str, Any]:
    """Compute all figures of a cell under a target; a plain cell serves every target.

    ``sampled``: what was measured while the cell was sampled.
    """
    data, plain = CellData(folder, cell), CellData(folder, cell.plain)
    target = parse_target(TARGETS[target_name], ATTRIBUTES)
    batch = cell.batch if cell.dependent else 1
    elsewhere = drift(plain.read, data.read, ATTRIBUTES, target.attributes, batch=batch, bootstrap=EXCHANGES)
    furthest = max(elsewhere, key=lambda report: report.drift)
    return {
        **fairness(cell, data, target_name),
        "frechet": reference.distance(data.features, target),
        "drift": furthest.drift,
        "drift_by_attribute": {report.attribute: report.drift for report in elsewhere},
        "drift_floor": furthest.floor,
        "seconds_per_image": sampled["seconds_per_image"],
        "peak_mb": sampled["peak_mb"],
        "strength": cell.strength,
        "bed": cell.bed,
        "commit": sampled.get("commit"),
    }


def scale_figure(cell: Cell, folder: Path) -> float:
    """Compute the figure that chooses a scale, lower is better.

    A loss on the batch mean is chosen by its FD, the other methods by the share of images that miss their class: with quotas, FD is 0 if
    equally many images miss on both sides.
    """
    figures = fairness(cell, CellData(folder, cell), str(cell.target), bootstrap=0)
    return float(figures["fd"] if figures["hit"] is None else 1 - figures["hit"])
