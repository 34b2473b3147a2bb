"""From scores of all features to lists by class: the best of each class, without those that classes share, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """The features of one attribute, ranked."""

    lists: tuple[Tensor, ...]
    """Latents of each class int64, best first."""
    shared: Tensor
    """Latents left out of all lists, because they speak nearly as much for another class."""
    features: Tensor
    """Union of the lists, best first."""


def rank(scores: Tensor, tau: int, shared: float) -> Ranking:
    """List at most ``tau`` features per class by their scores [K, m].

    Only features with a positive score are taken.

    A feature that is among the best of several classes stays with the one that it speaks for most, and is left out of all where its score
    for a second one is more than ``shared`` of that. Its place is then taken by the next best. Raises ValueError where no class has any.
    """
    k = len(scores)
    # With room for those that fall out, so that lists are filled from what is left.
    best = [set(top(scores[c], 2 * tau).tolist()) for c in range(k)]
    ordered, owner = scores.sort(dim=0, descending=True).values, scores.argmax(0)
    several = torch.tensor(sorted(f for f in set().union(*best) if sum(f in b for b in best) > 1), dtype=torch.long)
    left_out = several[ordered[1, several] > shared * ordered[0, several]]
    own = scores.clone()
    own[:, left_out] = 0
    for c in range(k):
        own[c, several[owner[several] != c]] = 0
    lists = tuple(top(own[c], tau) for c in range(k))
    union = torch.cat(lists).unique()
    if not len(union):
        raise ValueError("no feature speaks for any class: check the labels and the reader's accuracy, or train the autoencoder further.")
    strength = scores[:, union].amax(0)
    return Ranking(lists, left_out, union[strength.argsort(descending=True, stable=True)])


def top(scores: Tensor, count: int) -> Tensor:
    """Return the features with the highest positive scores [m], best first.

    int64 [at most count].
    """
    order = scores.argsort(descending=True, stable=True)[:count]
    return order[scores[order] > 0]


def rank_stability(resampled: Tensor, features: Tensor, tau: int) -> Tensor:
    """Return how often a feature is among the best of a class: [K, F].

    The share of resamples [B, K, m] in which it is among the ``tau`` best; float32. NaN without resamples.
    """
    if not len(resampled):
        return torch.full((resampled.shape[1], len(features)), float("nan"))
    count = min(tau, resampled.shape[2])
    among = torch.zeros_like(resampled, dtype=torch.bool).scatter_(2, resampled.topk(count, dim=2).indices, True) & (resampled > 0)
    return among[:, :, features].float().mean(0)


def side_effects(scores: Mapping[str, Tensor], attribute: str, features: Tensor) -> Tensor:
    """Compare attributions to the other attributes with that to this one: [F].

    The sum over all other attributes, relative to the attribution on this one; float32.

    scores: attribute -> [K, m]. Of an attribute, the class that a feature speaks most for or against counts. NaN where no other is read.
    """
    most = {a: s[:, features].abs().amax(0) for a, s in scores.items()}
    others = [m for a, m in most.items() if a != attribute]
    if not others:
        return torch.full((len(features),), float("nan"))
    return torch.stack(others).sum(0) / most[attribute].clamp(min=1e-12)
