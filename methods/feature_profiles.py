"""Profiles to steer by, read off the recorded features: where and when images of a class have other activations than the others."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.adp import GRID
from ..models.bias_features import CLASS_DIFFERENCE, Profile
from .adp_rows import filled
from .class_activations import ClassMeans


def class_difference(means: ClassMeans, knots: Tensor, features: Tensor, relative: bool = False) -> Profile:
    """The mean activation of class k by place and noise level, minus that of the other classes, each counting alike; sizes are 1.

    relative: minus the mean of all classes instead, so that what is added towards c is the way from what an image is read as to c. Noise
    levels at which a class has no rows are interpolated from those around them; those beyond all rows are left out.
    """
    seen = (means.count > 0).all(1)
    if not seen.any():
        raise ValueError("there is no noise level at which every class has images: record more images.")
    inside = (knots >= knots[seen][0]) & (knots <= knots[seen][-1])
    classes = range(means.count.shape[1])
    centre = means.centre
    delta = torch.stack([means.mean[:, k] - centre if relative else means.difference(k) for k in classes], 1)[:, :, features]
    delta = filled(delta[seen], knots[seen].contiguous(), knots[inside])
    shape = (len(delta), len(classes), 1, len(features), GRID, GRID)
    return Profile(knots[inside].clone(), delta.reshape(shape), torch.ones(shape[:2]), "seeded", CLASS_DIFFERENCE, relative)
