"""Profiles to steer by, read off the recorded features: where and when images of a class have other activations than the others."""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.bias_features import CLASS_DIFFERENCE, Profile
from ...models.sites import GRID
from ..data.feature_rows import filled
from .class_activations import ClassMeans


def class_difference(means: ClassMeans, knots: Tensor, features: Tensor, relative: bool = False) -> Profile:
    """Make profiles of the differences between classes in mean activation.

    Class k's mean minus that of the other classes, each counting alike, by position and noise level; sizes are 1.

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
