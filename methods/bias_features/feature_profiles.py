"""Profiles to steer by, read off the recorded features: where and when images of a class have other activations than the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.bias_features import CLASS_DIFFERENCE, AttributeFeatures, Profile
from ...models.noise_level import at_level
from ...models.sites import GRID
from ..adp.rows import filled
from .class_activations import ClassMeans


def class_difference(means: ClassMeans, knots: Tensor, features: Tensor, relative: bool = False) -> Profile:
    """The mean activation of class k by place and noise level, minus that of the other classes, each counting alike; sizes are 1.

    relative: minus the mean of all classes instead, so that what is added towards c is the way from what an image is read as to c. Noise
    levels at which a class has no rows are interpolated from those around them. Rows count at the nearest knot, so that those of the first
    and last one may lie up to half a knot's distance beyond: there the profile falls to 0, over one knot's distance, and ends.
    """
    seen = (means.count > 0).all(1)
    if not seen.any():
        raise ValueError("there is no noise level at which every class has images: record more images.")
    inside = (knots >= knots[seen][0]) & (knots <= knots[seen][-1])
    classes = range(means.count.shape[1])
    centre = means.centre
    delta = torch.stack([means.mean[:, k] - centre if relative else means.difference(k) for k in classes], 1)[:, :, features]
    delta = filled(delta[seen], knots[seen].contiguous(), knots[inside])
    step = (knots[-1:] - knots[:1]) / (len(knots) - 1) if len(knots) > 1 else torch.ones(1)
    around = torch.cat([knots[inside][:1] - step, knots[inside], knots[inside][-1:] + step])
    delta = torch.nn.functional.pad(delta.flatten(1), (0, 0, 1, 1))
    shape = (len(around), len(classes), 1, len(features), GRID, GRID)
    return Profile(around, delta.reshape(shape), torch.ones(shape[:2]), "seeded", CLASS_DIFFERENCE, relative)


def chart_facts(a: AttributeFeatures, source: str = "") -> dict[str, Any]:
    """What :func:`..charts.bias_features.bias_features_chart` draws of an attribute: its arguments but the name.

    The place of a feature is its profile to each class, averaged over the noise levels at which it is turned, each counting by what the
    feature carries there.
    """
    profile = a.profile(source)
    acts = (profile.sizes != 0) & (profile.delta != 0).flatten(2).any(2)
    carries = at_level(a.scores_by_level, a.knots, profile.knots).clamp(min=0) * acts[:, :, None]
    weights = carries / carries.sum(0).clamp(min=1e-12)
    return {
        "classes": a.classes,
        "features": a.features.tolist(),
        "scores": a.scores.numpy(),
        "stability": a.stability.numpy(),
        "knots": a.knots.numpy(),
        "by_level": a.scores_by_level.numpy(),
        "places": torch.einsum("tkf,tkrfyx->kfyx", weights, profile.delta / profile.delta.shape[2]).numpy(),
        "side_effect": a.side_effect.numpy(),
        "causal": a.causal.numpy(),
    }
