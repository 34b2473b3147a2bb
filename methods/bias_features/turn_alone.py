"""Turn one feature alone, up or down, where it carries a class, to measure its causal score.

Attribution says what a predictor takes from a feature, but a reading is not an effect (Shi et al., CVPR 2025, choose features by
attribution alone). So the feature is turned in sampling runs, and the finished images are read. It is turned at those positions of the 4x4
grid where its class-difference profile, averaged over noise levels, is at least half as large as at its largest. *Up* adds ``amount`` times
its typical activation there, *down* removes its activation there, both at all noise levels of the profile. The typical activation is the
mean over plain images, at those positions and noise levels, where the feature is active.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...models.bias_features import CLASS_DIFFERENCE, AttributeFeatures, BiasFeatures, Profile
from ...models.sites import GRID

NEAR = 0.5
"""A position counts if the profile there is at least this share of its largest value."""
AMOUNT = 10.0
"""Typical activations that are added. One feature at one position is a small part of what carries an attribute: on the test bed 1 to 3
class differences, which are about as large, change hardly an image, and 30 reverse the effect of some features."""
NOTHING = -1e4
"""Added to an activation to remove it: far below any, and activations stay at 0."""
SOURCE = "alone"


@dataclass(frozen=True)
class Turn:
    """One feature to turn, and where."""

    attribute: str
    """Attribute whose class the feature carries."""
    index: int
    """Index among the attribute's features."""
    latent: int
    """Number in the autoencoder."""
    own: int
    """Class that the feature speaks for most."""
    positions: Tensor
    """Positions of the grid where it is turned, bool [4, 4]."""
    knots: Tensor
    """log-SNR levels of its profile, [T]."""
    levels: Tensor
    """Knots at which it is turned, bool [T]; the edit falls to 0 towards the others."""
    surplus: float
    """Largest value of its profile. It replaces the typical activation of a feature that is never active."""

    @property
    def window(self) -> tuple[float, float]:
        """Interval of log-SNR in which it is turned."""
        return float(self.knots[0]), float(self.knots[-1])

    @property
    def key(self) -> str:
        """Digest of what is turned, the same for every attribute."""
        low, high = self.window
        positions = "".join(str(int(p)) for p in self.positions.flatten())
        return hashlib.sha256(f"{self.latent} {positions} {low:.4f} {high:.4f}".encode()).hexdigest()[:16]


def turns_of(attribute: str, features: AttributeFeatures, per_class: int) -> list[Turn]:
    """List the ``per_class`` features that speak most for each class, best first.

    A feature that is nowhere more active in its class than in the others cannot be turned, and is left out. Raises ValueError if there is
    no class-difference profile, or no feature to turn.
    """
    profile = features.profiles.get(CLASS_DIFFERENCE)
    if profile is None:
        raise ValueError(
            f"the bias features of '{attribute}' have no '{CLASS_DIFFERENCE}' profile, which says where to turn a feature: run Find Bias "
            "Features again."
        )
    levels = (profile.delta != 0).flatten(1).any(1)
    lists = [features.best(name, per_class).tolist() for name in features.classes]
    ranked = dict.fromkeys(i for rank in range(per_class) for chosen in lists for i in chosen[rank : rank + 1])
    turns = []
    for i in ranked:
        own = int(features.scores[:, i].argmax())
        mean = profile.delta[:, own, :, i].mean((0, 1))
        most = float(mean.max())
        if most > 0:
            surplus = float(profile.delta[:, own, :, i].max())
            turns.append(Turn(attribute, i, int(features.features[i]), own, mean >= NEAR * most, profile.knots, levels, surplus))
    if not turns:
        raise ValueError(f"no feature of '{attribute}' speaks for a class of it, so there is none to turn: run Find Bias Features again.")
    return turns


def turned_file(file: BiasFeatures, turn: Turn, added: float) -> BiasFeatures:
    """Make bias features that add ``added`` to this feature alone, at its positions.

    They do so for every class that is steered to.
    """
    classes = file.attribute(turn.attribute).classes
    k, t = len(classes), len(turn.knots)
    by_level = turn.levels.float()[:, None, None] * turn.positions * added
    delta = by_level[:, None, None, None].expand(t, k, 1, 1, GRID, GRID).clone()
    none = torch.zeros(k, 1)
    alone = AttributeFeatures(
        classes,
        torch.tensor([turn.latent]),
        none,
        torch.zeros(1, k, 1),
        none,
        torch.zeros(1),
        none,
        torch.zeros(1),
        {SOURCE: Profile(turn.knots, delta, torch.ones(t, k), source=SOURCE)},
        SOURCE,
    )
    return replace(file, attributes={turn.attribute: alone})
