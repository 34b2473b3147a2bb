"""Add features to those of an attribute, and profiles to the features."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...models.bias_features import AttributeFeatures, BiasFeatures, Profile


def with_features(found: AttributeFeatures, more: Tensor) -> AttributeFeatures:
    """The features with others int64 [n] after them, those that are there already left out.

    What is not known of the new ones is 0 (scores, stability) or NaN (side effects, causal scores); profiles leave them as they are.
    """
    new = more[~torch.isin(more, found.features)].unique()
    n = len(new)
    if not n:
        return found

    def wider(table: Tensor, value: float) -> Tensor:
        return torch.cat([table, table.new_full((*table.shape[:-1], n), value)], dim=-1)

    def longer(profile: Profile) -> Profile:
        t, k, r, _, height, width = profile.delta.shape
        return replace(profile, delta=torch.cat([profile.delta, profile.delta.new_zeros(t, k, r, n, height, width)], dim=3))

    return replace(
        found,
        features=torch.cat([found.features, new]),
        scores=wider(found.scores, 0.0),
        scores_by_level=wider(found.scores_by_level, 0.0),
        stability=wider(found.stability, 0.0),
        side_effect=wider(found.side_effect, math.nan),
        causal=wider(found.causal, math.nan),
        profiles={source: longer(p) for source, p in found.profiles.items()},
    )


def only_profile(file: BiasFeatures, source: str) -> BiasFeatures:
    """The file with this profile alone, for the attributes that have it."""
    changed = {
        a: replace(f, profiles={source: f.profiles[source]}, default=source if f.default == source else "") if source in f.profiles else f
        for a, f in file.attributes.items()
    }
    return replace(file, attributes=changed)


def with_profile(file: BiasFeatures, attribute: str, profile: Profile, default: bool = False) -> BiasFeatures:
    """The file with a profile of an attribute, in place of one of the same source; ``default``: the one that is steered by."""
    found = file.attribute(attribute)
    chosen = profile.source if default else found.default
    changed = replace(found, profiles={**found.profiles, profile.source: profile}, default=chosen)
    return replace(file, attributes={**file.attributes, attribute: changed})
