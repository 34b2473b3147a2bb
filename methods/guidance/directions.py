"""Read directions from recorded features: class-mean difference, shrunken linear discriminant, and their sum, at every noise level."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.adp import Move
from ...models.sites import GRID, MIDDLE

MEAN, DISCRIMINANT, SUM = "mean-difference", "linear-discriminant", "sum"
KINDS = (MEAN, DISCRIMINANT, SUM)
"""Directions that labelled features give."""
CONTRAST = "prompt-contrast"
"""The direction that pairs of prompts give, without images or labels."""


def class_means(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Average features [N, D] per class: [K, D].

    Raises ValueError if a class has no image.
    """
    counts = torch.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"class {int((counts == 0).nonzero()[0])} has no image in the feature set: record more images, or drop the class.")
    return torch.zeros(classes, x.shape[1]).index_add_(0, labels, x) / counts[:, None]


def mean_difference(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return unit vectors [K, D] from the mean of all classes to each class."""
    means = class_means(x, labels, classes)
    return torch.nn.functional.normalize(means - means.mean(0), dim=1)


def linear_discriminant(x: Tensor, labels: Tensor, classes: int, shrinkage: float = 0.1) -> Tensor:
    """Return unit vectors [K, D]: (shrunken within-class covariance)^-1 (class mean - mean over classes).

    The covariance is moved by ``shrinkage`` towards a multiple of the identity (Ledoit & Wolf 2004, with a fixed share). If there are
    more features than images, the inverse is taken in the space of the images (Woodbury), so D may be 20,480.
    """
    means = class_means(x, labels, classes)
    difference = means - means.mean(0)
    residual = x - means[labels]
    n, d = residual.shape
    scale = residual.pow(2).sum() / (n * d)
    a, b = shrinkage * scale, (1 - shrinkage) / n
    if d <= n:
        covariance = b * residual.T @ residual + a * torch.eye(d)
        vectors = torch.linalg.solve(covariance, difference.T).T
    else:
        inner = torch.eye(n) * a / b + residual @ residual.T
        vectors = (difference - torch.linalg.solve(inner, residual @ difference.T).T @ residual) / a
    return torch.nn.functional.normalize(vectors, dim=1)


def direction_move(kind: str, features: Tensor, level: Tensor, labels: Tensor, classes: int, size: float = 1.0, site: str = MIDDLE) -> Move:
    """Make a move of recorded features, relative to the class that is read.

    features [rows, C, 4, 4]; log-SNR [rows]; labels int64 [rows] of the rows' images. Rows are grouped by their distinct log-SNR, which
    become the move's knots. With u_c the unit direction of class c, the step from class k to class c is u_c - u_k: an image that is read
    as c already stays as it is, and one that is read as the class beyond c comes back, so that a class between two others is reached from
    either side. The longest step of a knot has norm 1, every size is ``size`` (in norms of h). Raises ValueError for an unknown
    kind or an empty class.
    """
    if kind not in KINDS:
        raise ValueError(f"a direction is of kind {', '.join(KINDS)}, not '{kind}'.")
    knots = level.unique()
    vectors = torch.zeros(len(knots), classes, 1, features.shape[1], GRID, GRID)
    for i, knot in enumerate(knots):
        rows = level == knot
        x, y = features[rows].float().flatten(1), labels[rows]
        direction = torch.zeros(classes, x.shape[1])
        if kind in (MEAN, SUM):
            direction = direction + mean_difference(x, y, classes)
        if kind in (DISCRIMINANT, SUM):
            direction = direction + linear_discriminant(x, y, classes)
        unit = torch.nn.functional.normalize(direction, dim=1)
        longest = torch.cdist(unit, unit).max().clamp(min=1e-8)
        vectors[i, :, 0] = (unit / longest).view(classes, -1, GRID, GRID)
    return Move(site, knots, vectors, torch.full((len(knots), classes), size), source=kind, relative=True)
