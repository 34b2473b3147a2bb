"""Compute the paper's losses on the soft mean of a batch, for any number of classes, finite at shares of 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.targets import TargetDistribution

CHI_SQUARE, KL = "chi-square", "kl"
SOFT_LOSSES = (CHI_SQUARE, KL)
SMOOTHING = 1e-3
"""Added to every share, then renormalised, so that a target of 0 or 1 stays finite."""


def soft_loss(mode: str, mean: Tensor, target: Tensor) -> Tensor:
    """Compute the divergence of a soft batch mean from a target, both [K].

    Balancing Act: chi-square sum (p - r)^2 / r, or KL(p || r).
    """
    p = (mean + SMOOTHING) / (1 + SMOOTHING * mean.numel())
    r = (target + SMOOTHING) / (1 + SMOOTHING * target.numel())
    if mode == CHI_SQUARE:
        return ((p - r) ** 2 / r).sum()
    if mode == KL:
        return (p * (p / r).log()).sum()
    raise ValueError(f"mode '{mode}' is not one of {', '.join(SOFT_LOSSES)}.")


def soft_loss_gradient(mode: str, x: Tensor, logits: Mapping[str, Tensor], target: TargetDistribution, temperature: float) -> Tensor:
    """Compute the gradient of the loss by x [N, C, H, W].

    ``logits`` (attribute -> [N, K]) were computed from x.

    The probabilities are softened by ``temperature`` (8 in the paper); several attributes form one joint table per image (product).
    """
    joint = None
    for attribute in target.attributes:
        p = (logits[attribute] / temperature).softmax(-1)
        joint = p if joint is None else (joint[:, :, None] * p[:, None, :]).flatten(1)
    shares = torch.tensor(target.shares, dtype=joint.dtype, device=joint.device)
    (gradient,) = torch.autograd.grad(soft_loss(mode, joint.mean(0), shares), x)
    return gradient
