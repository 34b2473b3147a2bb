"""Fit profiles of bias features: how activations are turned towards a class, through the decoder, once.

The objectives are those of moves (:mod:`..guidance.fit_moves`): images of the class should be denoised well, and images of any class should
be predicted as images that the labeller calls so. The fit changes activations of chosen features by position. They stay non-negative when
they are applied, so only what the autoencoder has a feature for can be added or removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...models.bias_features import LEARNED, AttributeFeatures, Profile
from ...models.noise_level import at_level
from ...models.sae import SparseAutoencoder
from ...models.sites import GRID, block_site
from ..core.trainer import VectorFit
from ..guidance.fit_moves import FitSettings, MoveHook, SitePredictor, move_knots
from .run import profile_delta

NOISE_SHARE = 1 / 7
"""Share of a table's largest entry below which entries count as the fit's noise. On the test bed tables have an rms of 0.3, also where
nothing is asked for, and largest entries of 2.8 to 3.6; the figures below were measured with 0.5 as the bound."""


class _Turn(torch.autograd.Function):
    """Clamp at 0, with a gradient that also reaches below.

    So an activation that is off can wake.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Clamp at 0."""
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Let gradients pass that would raise a value above 0."""
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0) | (gradient < 0))


class ProfileHook(MoveHook):
    """Turn activations in the network while their profiles are fitted. ``features``: attribute -> int64 [F]."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        site: str,
        features: Mapping[str, Tensor],
        vectors: Mapping[str, Tensor],
        reads: SitePredictor,
        device: torch.device,
    ) -> None:
        super().__init__({a: (site, len(f)) for a, f in features.items()}, vectors, reads, device)
        self.sae, self.site = sae, site
        self.union = torch.cat(list(features.values())).unique().to(device)
        self.positions = {a: torch.searchsorted(self.union, f.to(device)) for a, f in features.items()}

    def options(self, level: float, wanted: Mapping[str, Tensor], include: Mapping[str, Tensor]) -> dict[str, Any]:
        """Make transformer_options for the next call."""
        options = super().options(level, wanted, include)
        knots = self.knots.to(self.device)
        self._profiles = {a: Profile(knots, v, self._ones[a]) for a, v in self.vectors.items()}
        return options

    def patch(self, h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Edit h, as a patch that the host calls at every output block."""
        site = block_site(options["block"])
        self.read(site, h)
        if site != self.site:
            return h, skip
        at = torch.full((h.shape[0],), self._level, device=self.device)
        with torch.no_grad():
            z = self.sae.active(h, at, self.union)
        turned = z
        for a, positions in self.positions.items():
            step = profile_delta(self._profiles[a], self.wanted[a], self._read.get(a), self._level, h.shape[-2:])
            self.lengths.append(step.flatten(1).pow(2).mean(1))
            turned = turned.index_add(1, positions, step * self.include[a][:, None, None, None])
        return (h.float() + self.sae.delta(_Turn.apply(turned) - z, at, self.union)).to(h.dtype), skip


def empty_profiles(features_of: Mapping[str, AttributeFeatures]) -> dict[str, Profile]:
    """Make profiles of zeros over all features of these attributes, from which a fit begins."""
    knots = move_knots()
    shapes = {a: (len(knots), len(f.classes), 1, len(f.features), GRID, GRID) for a, f in features_of.items()}
    return {a: Profile(knots, torch.zeros(shape), torch.ones(shape[:2]), source=LEARNED) for a, shape in shapes.items()}


def new_profile_fit(start: Mapping[str, Profile], reads: SitePredictor, settings: FitSettings, device: torch.device) -> VectorFit:
    """Begin a fit at the given profiles.

    K x K for attributes that the predictor reads.
    """
    tables = {}
    for a, p in start.items():
        k = p.delta.shape[1]
        table = at_level(p.delta, p.knots, move_knots())[:, :, :1]
        tables[a] = table.expand(-1, -1, k if a in reads.attributes else 1, -1, -1, -1).to(device)
    return VectorFit(tables, settings.lr, settings.steps, settings.seed, ("denoising", "labelling"))


def finished_profiles(fit: VectorFit) -> dict[str, Profile]:
    """Take the profiles of a fit, without the noise of the fit.

    They are on the CPU, with sizes 1, and :func:`cleaned`.
    """
    profiles = {}
    for a, v in fit.vectors.items():
        delta = cleaned(v.detach().cpu())
        assign = "seeded" if delta.shape[2] == 1 else "reading"
        profiles[a] = Profile(move_knots(), delta, torch.ones(delta.shape[:2]), assign, LEARNED)
    return profiles


def cleaned(delta: Tensor) -> Tensor:
    """Remove the noise of the fit from a table [T, K, R, F, 4, 4].

    Entries below ``NOISE_SHARE`` of the largest become 0.

    Adam moves every number alike far, also those that nothing depends on. On the test bed 12 to 15% of the numbers were left, and
    brought as many images to their class as all of them (384 images: eyeglasses 99.5% after 99.0%, hair 98.7% both times).
    """
    return needed(delta.masked_fill(delta.abs() < NOISE_SHARE * delta.abs().max(), 0.0))


def needed(delta: Tensor) -> Tensor:
    """Zero what a table does to images that show the class already.

    The table [T, K, R, F, 4, 4] depends on the reading.

    What was fitted for them is mostly noise: with long hair for one half (384 images, small entries dropped both times), the largest
    change of another attribute's share fell from 7.6 to 3.1 points without it, and likeness to the same seed's plain image rose from 0.79
    to 0.85, at the same 98.7% of hits. The fit itself needs these entries: without them 96% of images that were all sent to eyeglasses had
    them, at a size at which 98% had them otherwise.
    """
    if delta.shape[2] == 1:
        return delta
    same = torch.eye(delta.shape[1], dtype=torch.bool, device=delta.device)
    return delta.masked_fill(same[None, :, :, None, None, None], 0.0)
