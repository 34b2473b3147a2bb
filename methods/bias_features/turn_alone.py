"""Turn one feature alone, up or down, at the places where it tells a class: what its causal score is measured by.

Attribution says what a reader takes from a feature; a reading is not an effect (Shi et al., CVPR 2025, choose features by attribution
alone). Here the feature is turned in whole sampling runs and the finished images are read. Its places are those of the 4x4 grid at which
its class-difference profile, averaged over noise levels, is at least half as large as at its largest. *Up* adds ``amount`` times its
typical activation there, *down* takes its activation there away, both at all noise levels of the profile. The typical activation is its
mean where it is active, at those places and noise levels, in plain images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...models.bias_features import CLASS_DIFFERENCE, AttributeFeatures, BiasFeatures, Profile
from ...models.sites import GRID

NEAR = 0.5
"""A place counts where the profile is at least this share of its largest value."""
AMOUNT = 10.0
"""Typical activations that are added. One feature at one place is a small part of what carries an attribute: on the test bed 1 to 3 class
differences, which are about as large, change hardly an image, and 30 turn the effect of some features around."""
NOTHING = -1e4
"""Added to an activation to be taken away: far below any, and activations stay at 0."""
SOURCE = "alone"


@dataclass(frozen=True)
class Turn:
    """One feature to be turned.

    ``index``: its place among the attribute's features; ``latent``: its number in the autoencoder; ``own``: the class that it speaks for
    most; ``places`` bool [4, 4]; ``knots`` [T] log-SNR and ``levels`` bool [T]: at which of them it is turned, falling to nothing towards
    the others; ``surplus``: the largest value of its profile, which stands in for a typical activation where it is never seen active.
    """

    attribute: str
    index: int
    latent: int
    own: int
    places: Tensor
    knots: Tensor
    levels: Tensor
    surplus: float

    @property
    def window(self) -> tuple[float, float]:
        """log-SNR between which it is turned."""
        return float(self.knots[0]), float(self.knots[-1])

    @property
    def key(self) -> str:
        """Names what is turned, whichever attribute it is turned for."""
        low, high = self.window
        places = "".join(str(int(p)) for p in self.places.flatten())
        return hashlib.sha256(f"{self.latent} {places} {low:.4f} {high:.4f}".encode()).hexdigest()[:16]


def turns_of(attribute: str, found: AttributeFeatures, per_class: int) -> list[Turn]:
    """The shortlist: of every class the ``per_class`` features that speak for it most, best first, each once.

    A feature that is nowhere more active in its class than in the others has no place to be turned at, and is left out. Raises ValueError
    where there is no class-difference profile to tell the places, or no feature to turn.
    """
    profile = found.profiles.get(CLASS_DIFFERENCE)
    if profile is None:
        raise ValueError(
            f"the bias features of '{attribute}' hold no '{CLASS_DIFFERENCE}' profile, which tells where features are to be turned: find "
            "them again."
        )
    levels = (profile.delta != 0).flatten(1).any(1)
    lists = [found.best(name, per_class).tolist() for name in found.classes]
    ranked = dict.fromkeys(i for rank in range(per_class) for chosen in lists for i in chosen[rank : rank + 1])
    turns = []
    for i in ranked:
        own = int(found.scores[:, i].argmax())
        mean = profile.delta[:, own, :, i].mean((0, 1))
        if (most := float(mean.max())) > 0:
            surplus = float(profile.delta[:, own, :, i].max())
            turns.append(Turn(attribute, i, int(found.features[i]), own, mean >= NEAR * most, profile.knots, levels, surplus))
    if not turns:
        raise ValueError(f"no feature of '{attribute}' speaks for a class of it, so there is none to turn: find its features again.")
    return turns


def turned_file(file: BiasFeatures, turn: Turn, added: float) -> BiasFeatures:
    """Bias features with which steering towards any class of the turn's attribute adds ``added`` to this feature alone, at its places."""
    classes = file.attribute(turn.attribute).classes
    k, t = len(classes), len(turn.knots)
    here = turn.levels.float()[:, None, None] * turn.places * added
    delta = here[:, None, None, None].expand(t, k, 1, 1, GRID, GRID).clone()
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
