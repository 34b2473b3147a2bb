"""Measure a predictor on held-out images, by noise level, and describe the figures in words.

All figures go into the ADP file's ``info``, so that the same words and charts can be made from the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.adp import AdpFile
from ...models.noise_level import at_level
from ..data.feature_rows import filled

BINS = 15
FEW_ROWS, FEW_IMAGES = 20, 10
"""Rows below which a noise level gets no temperature of its own; held-out images of a class below which its figures say little."""
GOOD = 0.9

Curve = list[list[float]]
"""[[log-SNR, value], ...], ascending."""


@dataclass(frozen=True)
class Figures:
    """Hold the figures of one attribute on held-out images."""

    accuracy: Curve
    """Balanced accuracy by log-SNR."""
    loss: Curve
    """Cross-entropy by log-SNR, after calibration."""
    calibration_error: Curve
    """Expected calibration error by log-SNR."""
    images: tuple[int, ...]
    """Held-out images by most probable class."""


def nearest_knot(level: Tensor, knots: Tensor) -> Tensor:
    """Return the index of the knot nearest to each log-SNR [N]."""
    return (level[:, None] - knots[None]).abs().argmin(1)


def accuracy_by_level(logits: Tensor, truth: Tensor, level: Tensor, knots: Tensor) -> Curve:
    """Measure the balanced accuracy at every knot: [[log_snr, accuracy], ...].

    Balanced accuracy is the mean recall over classes. Each knot is measured on the rows that are nearest to it.
    """
    nearest = nearest_knot(level, knots)
    right, true_class = logits.argmax(-1) == truth.argmax(-1), truth.argmax(-1)
    result = []
    for i, knot in enumerate(knots.tolist()):
        rows = nearest == i
        recalls = [right[rows & (true_class == c)].float().mean().item() for c in range(truth.shape[1]) if (rows & (true_class == c)).any()]
        if recalls:
            result.append([round(knot, 3), round(sum(recalls) / len(recalls), 4)])
    return result


def cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Compute the weighted cross-entropy of every row [N]: -sum_k w_k y_k log p_k.

    ``truth``: soft labels y [N, K]. ``weights``: class weights w [K].
    """
    return -(weights * truth * logits.log_softmax(-1)).sum(-1)


def fit_temperature(logits: Tensor, truth: Tensor, level: Tensor, knots: Tensor, weights: Tensor | None = None) -> Tensor:
    """Fit the temperature of every noise level [T] that minimises the cross-entropy.

    After Guo et al. 2017, by search over 0.25 to 8.

    Levels with fewer than 20 rows take theirs from the levels around them; all are 1 if no level has enough rows.
    """
    w = torch.ones(truth.shape[1]) if weights is None else weights
    nearest = nearest_knot(level, knots)
    grid = torch.logspace(-2, 3, 41, base=2.0)
    temperatures = torch.ones(len(knots))
    fitted = torch.bincount(nearest, minlength=len(knots)) >= FEW_ROWS
    for i in fitted.nonzero().flatten().tolist():
        rows = nearest == i
        temperatures[i] = grid[torch.stack([cross_entropy(logits[rows] / t, truth[rows], w).mean() for t in grid]).argmin()]
    return filled(temperatures[fitted], knots[fitted], knots) if fitted.any() else temperatures


def calibration_error(p: Tensor, truth: Tensor, weights: Tensor | None = None, bins: int = BINS) -> float:
    """Compute the expected calibration error of probabilities [N, K].

    Over equal bins of confidence (Naeini et al. 2015; Guo et al. 2017).

    ``truth`` [N, K] may be soft: an answer is as right as its class is probable. ``weights`` [K]: class weights that the predictor was
    trained with; the error is then that on images whose classes are as frequent as the weights make them.
    """
    w = torch.ones(truth.shape[1]) if weights is None else weights
    confidence, answer = p.max(-1)
    mass = (truth * w).sum(-1)
    right = (truth * w).gather(1, answer[:, None])[:, 0]
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins).index_add_(0, bin_of, right - mass * confidence)
    return float(gap.abs().sum() / mass.sum())


def figures(logits: Tensor, truth: Tensor, level: Tensor, ids: Tensor, knots: Tensor, weights: Tensor) -> Figures:
    """Measure the logits of a predictor against soft labels.

    Raw logits [N, K] and labels [N, K], at log-SNR [N], of images [N].

    Loss and calibration error are measured after calibration by temperature, which is fitted on one half of the images and measured on the
    other, both ways: the temperatures that go into the file were fitted on the held-out images.
    """
    images, inverse = ids.unique(return_inverse=True)
    fold = inverse % 2
    calibrated = logits.clone()
    for half in (0, 1):
        measured, fitted = fold == half, fold != half
        if len(images) > 1:
            table = fit_temperature(logits[fitted], truth[fitted], level[fitted], knots, weights)
            calibrated[measured] = logits[measured] / at_level(table, knots, level[measured])[:, None]
    nearest = nearest_knot(level, knots)
    losses, errors = [], []
    loss, p = cross_entropy(calibrated, truth, weights), calibrated.softmax(-1)
    for i in nearest.unique().tolist():
        rows, at = nearest == i, round(float(knots[i]), 3)
        losses.append([at, round(float(loss[rows].mean()), 4)])
        errors.append([at, round(calibration_error(p[rows], truth[rows], weights), 4)])
    first = torch.zeros(len(images), dtype=torch.long).scatter_(0, inverse, torch.arange(len(ids)))
    counts = torch.bincount(truth[first].argmax(-1), minlength=truth.shape[1])
    return Figures(accuracy_by_level(logits, truth, level, knots), losses, errors, tuple(counts.tolist()))


# -- in words ------------------------------------------------------------------------------------------------------------------------


def trajectory(level: Tensor, most: int = 51) -> list[float]:
    """Summarise the recorded calls: log-SNR, ascending, each for an equal share of them."""
    order = level.float().sort().values
    distinct, counts = order.unique(return_counts=True)
    if len(distinct) <= most and int(counts.max()) == int(counts.min()):
        return [round(v, 4) for v in distinct.tolist()]
    return [round(float(order[round(q * (len(order) - 1))]), 4) for q in torch.linspace(0, 1, most).tolist()]


def along(curve: Curve, recorded: Sequence[float]) -> Tensor:
    """Interpolate a curve at the recorded log-SNRs."""
    at, values = torch.tensor(curve, dtype=torch.float32).unbind(1)
    return filled(values[:, None], at, torch.tensor(list(recorded), dtype=torch.float32))[:, 0]


def share_above(curve: Curve, recorded: Sequence[float], accuracy: float = GOOD) -> float:
    """Return the share of recorded calls whose balanced accuracy is at least ``accuracy``.

    From 0 to 1.
    """
    return float((along(curve, recorded) >= accuracy).float().mean())


def reads_between(curve: Curve, recorded: Sequence[float], threshold: float) -> tuple[int, int] | None:
    """Find the longest stretch of calls with at least this accuracy.

    Returns its first call and the one after its last; None if there is no such stretch.
    """
    best, start = None, None
    for i, good in enumerate([*(along(curve, recorded) >= threshold).tolist(), False]):
        if good and start is None:
            start = i
        if not good and start is not None:
            if best is None or i - start > best[1] - best[0]:
                best = start, i
            start = None
    return best


def threshold_of(classes: int) -> float:
    """Return the balanced accuracy from which an attribute counts as read.

    It lies two fifths between chance and certainty: 70% for two classes.
    """
    chance = 1 / classes
    return chance + 0.4 * (1 - chance)


def verdict(attribute: str, classes: Sequence[str], measured: Figures, recorded: Sequence[float]) -> str:
    """Describe when an attribute is read, how well, and what is uncertain.

    One or two sentences.
    """
    threshold = threshold_of(len(classes))
    span = reads_between(measured.accuracy, recorded, threshold)
    few = [f"{n} of {c}" for c, n in zip(classes, measured.images, strict=True) if n < FEW_IMAGES]
    doubt = f" Too few held-out images to be sure: {', '.join(few)}." if few else ""
    if span is None:
        best = max(v for _, v in measured.accuracy)
        return (
            f"{attribute} cannot be read: {best:.0%} accurate at best, and guessing gives {1 / len(classes):.0%}. Check the labels, or "
            f"record more images.{doubt}"
        )
    start, end, n = *span, len(recorded)
    mean = float(along(measured.accuracy, recorded)[start:end].mean())
    begin, finish = f"{start / n:.0%}", f"{end / n:.0%}"
    if (start, end) == (0, n):
        where = ""
    elif end == n:
        where = f" from {begin} of the sampling steps on, and below {threshold:.0%} before that"
    elif start == 0:
        where = f" up to {finish} of the sampling steps, and below {threshold:.0%} after that"
    else:
        where = f" from {begin} to {finish} of the sampling steps, and below {threshold:.0%} elsewhere"
    good = share_above(measured.accuracy, recorded)
    return (
        f"{attribute}: {mean:.0%} accurate on held-out images{where}. "
        f"It reaches {GOOD:.0%} or better for {good:.0%} of the sampling steps.{doubt}"
    )


def describe_adp(file: AdpFile) -> str:
    """Describe an ADP in lines.

    They say what it reads and how well, how it was trained, and how it was calibrated.
    """
    info = file.info
    lines = [file.text()]
    for attribute in file.attributes:
        lines += ["", attribute]
        lines += [f"  {line}" for line in _of_attribute(file, attribute, info)]
    if info.get("licence"):
        lines += ["", f"licence: {info['licence']}"]
    return "\n".join(lines)


def _of_attribute(file: AdpFile, attribute: str, info: Mapping[str, Any]) -> list[str]:
    lines = []
    sentence = info.get("verdict", {}).get(attribute)
    if sentence:
        lines.append(sentence)
    for name, key in (
        ("held-out balanced accuracy", "accuracy_by_log_snr"),
        ("held-out loss", "loss_by_log_snr"),
        ("calibration error", "calibration_error_by_log_snr"),
    ):
        curve = info.get(key, {}).get(attribute)
        if curve:
            lines.append(f"{name} by log-SNR: " + ", ".join(f"{at:g}: {value:.3f}" for at, value in curve))
    trained = info.get("trained", {}).get(attribute)
    if trained:
        known = {"images": "images", "held_out": "held out", "epochs": "epochs", "features": "features", "labels": "labels from"}
        lines.append("trained: " + ", ".join(f"{word} {trained[k]}" for k, word in known.items() if trained.get(k) not in (None, "")))
    for source, move in file.sources().get(attribute, {}).items():
        low, high = move.window
        best = " (the one used)" if file.moves.get(attribute) is move else ""
        assign = move.assign if attribute in file.read else "seed"
        lines.append(f"moves '{source}' at {move.site}, log-SNR {low:.1f} to {high:.1f}, assigned by {assign}{best}")
    for source, facts in info.get("directions", {}).get(attribute, {}).items():
        lines += [f"'{source}': {line}" for line in facts.get("lines", [])]
    stages = [r for r in info.get("calibration", {}).get(attribute, {}).values() if isinstance(r, Mapping)]
    hits = {source: float(value) for r in stages for source, value in dict(r.get("hits", {})).items()}
    if hits:
        lines.append("as assigned in calibration: " + ", ".join(f"{s} {v:.1%}" for s, v in hits.items()))
    lines += [str(r["quality"]["text"]) for r in stages if isinstance(r.get("quality"), Mapping) and r["quality"].get("text")]
    return lines
