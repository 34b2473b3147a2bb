"""How far a judge can be trusted on generated images: agreement with another reader, and whether its probabilities mean what they say.

A judge that is right on photographs may be wrong on a model's images. Against labels from elsewhere (a second network, or people) this
measures by how much. Agreement of two networks is no proof: they may err alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .fairness import _probabilities

Array = NDArray[np.float64]
BINS = 15
SMALLEST = 1e-12


@dataclass(frozen=True)
class AgreementReport:
    """Judge against reference labels, for one attribute."""

    classes: tuple[str, ...]
    """Class names."""
    n: int
    """Number of images."""
    agreement: float
    """Share of images with the same class."""
    low: float
    """Lower bound of its 95% Wilson interval."""
    high: float
    """Upper bound."""
    kappa: float | None
    """Cohen's kappa, beyond chance; None where both see a single class."""
    confusion: tuple[tuple[int, ...], ...]
    """Images by reference class (rows) and judged class (columns), [K][K]."""
    by_class: tuple[float | None, ...]
    """Of the images of each reference class, the share judged so; None where there are none."""
    confidence: float
    """Mean highest probability."""
    expected_calibration_error: float
    """Mean distance between confidence and agreement over 15 bins of confidence (Guo et al. 2017)."""
    brier: float
    """Mean squared distance of the probabilities from the label."""
    log_loss: float
    """Mean negative log-likelihood of the label, in nats."""
    bins: tuple[tuple[float, float, int], ...]
    """(Confidence, agreement, count) of every bin that holds images."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings and lists."""
        return asdict(self)


def judge_agreement(
    probabilities: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    classes: Sequence[str],
) -> AgreementReport:
    """Compare a judge's probabilities [N, K] with reference labels of the same images.

    labels: class indices [N], or another reader's probabilities [N, K], of which the most probable class counts.

    Raises ValueError where shapes, probabilities or labels do not fit.
    """
    p = _probabilities(probabilities)
    n, k = p.shape
    if len(classes) != k:
        raise ValueError(f"expected {k} class names, one per column of the probabilities; met {list(classes)}.")
    truth = _hard(labels, n, k)
    seen = p.argmax(1)
    hit = (seen == truth).astype(np.float64)
    low, high = wilson(int(hit.sum()), n)
    confusion = np.zeros((k, k), dtype=np.int64)
    np.add.at(confusion, (truth, seen), 1)
    confidence = p.max(1)
    bins = _bins(confidence, hit)
    rows = np.arange(n)
    return AgreementReport(
        classes=tuple(str(c) for c in classes),
        n=n,
        agreement=float(hit.mean()),
        low=low,
        high=high,
        kappa=cohen_kappa(confusion),
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        by_class=tuple(float(confusion[c, c] / confusion[c].sum()) if confusion[c].any() else None for c in range(k)),
        confidence=float(confidence.mean()),
        expected_calibration_error=float(sum(abs(c - a) * count for c, a, count in bins) / n),
        brier=float(((p - np.eye(k)[truth]) ** 2).sum(1).mean()),
        log_loss=float(-np.log(p[rows, truth].clip(min=SMALLEST)).mean()),
        bins=bins,
    )


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95% score interval of a share (Wilson 1927).

    Unlike resampling it has a width where all images agree, or none.
    """
    z, p = 1.959963984540054, hits / n
    middle, spread = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + s * spread) / (1 + z**2 / n) for s in (-1, 1))
    return max(0.0, min(low, p)), min(1.0, max(high, p))


def cohen_kappa(confusion: ArrayLike) -> float | None:
    """Compute Cohen's kappa of a confusion matrix [K, K].

    (agreement - chance) / (1 - chance); chance: of two readers who draw from these shares.
    """
    table = np.asarray(confusion, dtype=np.float64)
    total = table.sum()
    agreement, chance = np.trace(table) / total, float(table.sum(0) @ table.sum(1)) / total**2
    return None if chance >= 1 else float((agreement - chance) / (1 - chance))


def _hard(labels: ArrayLike | Tensor, n: int, k: int) -> NDArray[np.int64]:
    stated = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if stated.ndim == 2:
        read = _probabilities(stated)
        if read.shape != (n, k):
            raise ValueError(f"two readers of the same images have tables of one shape; met {[n, k]} and {list(read.shape)}.")
        return read.argmax(1)
    if stated.shape != (n,) or (stated < 0).any() or (stated >= k).any() or not np.equal(stated, np.floor(stated)).all():
        raise ValueError(f"expected a class index below {k} for each of {n} images; met shape {list(stated.shape)}.")
    return stated.astype(np.int64)


def _bins(confidence: Array, hit: Array) -> tuple[tuple[float, float, int], ...]:
    """Compute mean confidence, agreement and count by confidence.

    Of every bin of equal width that holds images; a bin includes its lower edge.
    """
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.searchsorted(edges, confidence, side="right").clip(max=BINS) - 1
    return tuple(
        (float(confidence[inside].mean()), float(hit[inside].mean()), int(inside.sum())) for b in range(BINS) if (inside := bins == b).any()
    )
