"""Settings of :mod:`.find_bias_features`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .integrated_gradients import POINTS

BASELINES = ("mean", "zero")


@dataclass(frozen=True)
class AttributionSettings:
    """How to find features.

    ``tau``: at most so many per class. ``baseline``: "mean" (activations of the classes' mean, by noise level) or "zero". ``shared``: a
    feature that is among the best of two classes is left out where the second score is more than this share of the first. ``beside``: a
    feature that carries more than this many times as much of the other attributes (its side effect) is left out. ``images``: at most so
    many are gone through. ``resamples``: of the bootstrap. ``window``: log-SNR from, to, that counts (default: all that was recorded).
    ``points``: of the path, for a reader that is not linear. ``relative``: of the profile (:class:`..models.bias_features.Profile`).
    ``held_out``: ablate on images that took no part in the ranking. Raises ValueError for what cannot be.
    """

    tau: int = 32
    baseline: str = BASELINES[0]
    shared: float = 0.5
    beside: float = math.inf
    images: int = 2048
    resamples: int = 100
    window: tuple[float, float] = (-math.inf, math.inf)
    points: int = POINTS
    relative: bool = False
    held_out: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tau < 1 or self.images < 2 or self.resamples < 0 or self.points < 1 or not self.beside > 0:
            raise ValueError(
                "features per class and points are 1 or more, images 2 or more, resamples 0 or more, the limit of side effects above 0."
            )
        if self.baseline not in BASELINES:
            raise ValueError(f"a baseline is {' or '.join(BASELINES)}, not '{self.baseline}'.")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"a window is log-SNR from, to; met {self.window[0]} to {self.window[1]}.")
