"""Perceived skin tone in a picture, by the individual typology angle; no classifier, no training.

ITA = arctan((L* - 50) / b*) x 180 / pi in CIE Lab, in six classes (Chardon, Cretois and Hourseau 1991, International Journal of Cosmetic
Science 13: 191-208). The angle depends on the light and the white balance of the picture: it says how skin looks there, not what it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CLASSES = ("very light", "light", "intermediate", "tan", "brown", "dark")
BOUNDS = (55.0, 41.0, 28.0, 10.0, -30.0)
"""Between neighbouring classes, in degrees: very light > 55 > light > 41 > intermediate > 28 > tan > 10 > brown > -30 > dark."""
LEAST_YELLOW = 1.0
"""Pixels whose b* is not above this are left out: skin is yellowish, and at b* = 0 the angle only tells whether L* is above 50."""
LEAST_SHARE = 0.25
"""An image with a smaller share of yellowish pixels under the mask is not read: grey pictures, or a mask beside the skin."""
LEAST_SPREAD = 1.0
"""Degrees; what 8-bit colour leaves uncertain at best."""
ELLIPSE = (0.30, 0.36)
"""Default width and height of the central ellipse, as shares of the picture."""


@dataclass(frozen=True)
class ToneReading:
    """Skin tones of N images."""

    angle: Tensor
    """Median ITA in degrees, float32 [N]."""
    spread: Tensor
    """1.4826 times the median absolute deviation between pixels, at least 1 degree, float32 [N]."""
    read: Tensor
    """False where the picture shows too little that can be skin, bool [N]."""


def typology_angle(lightness: Tensor, b: Tensor) -> Tensor:
    """Compute the individual typology angle (ITA) in degrees from L* and b*.

    arctan2, not arctan: the two agree where b* > 0, the formula's domain. At b* <= 0 arctan jumps from +90 to -90, so light skin under
    bluish light would be read as dark; arctan2 goes on past 90 (light) or below -90 (dark).
    """
    return torch.rad2deg(torch.atan2(lightness - 50.0, b))


def central_ellipse(height: int, width: int, shares: tuple[float, float] = ELLIPSE) -> Tensor:
    """Make a mask of an ellipse in the middle: bool [H, W].

    It takes these shares of the width and of the height, and at least the central pixel.
    """
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    inside = (x / shares[0]).square()[None, :] + (y / shares[1]).square()[:, None] <= 1
    inside[height // 2, width // 2] = True
    return inside


def read_skin_tone(images: Tensor, mask: Tensor | None = None) -> ToneReading:
    """Measure the individual typology angle (ITA) of images within a mask.

    Images [N, 3, H, W], sRGB in 0..1. The mask ([H, W], [1, H, W] or [N, H, W]) counts above 0.5.

    Without a mask, over :func:`central_ellipse`. The median is taken over pixels with b* > 1; where these are fewer than a quarter it is
    taken over all, and ``read`` is False. A mask without a pixel above 0.5 gives an angle of 0 and ``read`` False.
    """
    from kornia.color import rgb_to_lab  # imported here: kornia takes a second or two

    n, _, h, w = images.shape
    chosen = central_ellipse(h, w) if mask is None else mask > 0.5
    part = _bounds(chosen)
    chosen = chosen.to(images.device).expand(n, h, w)[(..., *part)]
    lab = rgb_to_lab(images[(..., *part)].float().clamp(0, 1))
    angles, yellowish = typology_angle(lab[:, 0], lab[:, 2]), lab[:, 2] > LEAST_YELLOW
    angle, spread, read = torch.zeros(n), torch.full((n,), LEAST_SPREAD), torch.zeros(n, dtype=torch.bool)
    for i in range(n):
        skin = chosen[i] & yellowish[i]
        read[i] = bool(chosen[i].any()) and int(skin.sum()) >= LEAST_SHARE * int(chosen[i].sum())
        values = angles[i][skin if read[i] else chosen[i]]
        if len(values):
            middle = values.median()
            angle[i] = middle.cpu()
            spread[i] = max(LEAST_SPREAD, 1.4826 * float((values - middle).abs().median()))
    return ToneReading(angle, spread, read)


def _bounds(mask: Tensor) -> tuple[slice, slice]:
    """Find the rows and columns outside of which a mask [..., H, W] is empty.

    They are the first pixel if all of it is empty.
    """
    any_of = mask.reshape(-1, *mask.shape[-2:]).any(0)
    slices = []
    for axis in (1, 0):
        inside = any_of.any(axis).nonzero()[:, 0]
        slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 1))
    return slices[0], slices[1]


def tone_probabilities(reading: ToneReading, softness: float = 0.5) -> Tensor:
    """Turn angles into probabilities of the skin tone classes: float32 [N, 6].

    The classes are :data:`CLASSES`. A class gets the share of a normal distribution around the angle that falls within it.

    Its standard deviation is ``softness`` times the spread between pixels, at least 1 degree. Most of that spread is shading, which the
    median averages out; hence a half by default. 0 gives the class of the median alone. Images that could not be read get equal
    probabilities.
    """
    angle, bounds = reading.angle[:, None], torch.tensor(BOUNDS)[None, :]
    if softness > 0:
        sigma = (softness * reading.spread).clamp(min=LEAST_SPREAD)[:, None]
        above = 0.5 * (1 + torch.erf((angle - bounds) / (sigma * math.sqrt(2))))
    else:
        above = (angle > bounds).float()
    edges = torch.cat([torch.zeros_like(angle), above, torch.ones_like(angle)], dim=1)
    table = edges.diff(dim=1).clamp(min=0)
    table[~reading.read] = 1 / len(CLASSES)
    return table
