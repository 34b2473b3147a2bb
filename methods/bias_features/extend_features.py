"""Add features to those of an attribute, and profiles to the features."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...models.bias_features import AttributeFeatures, BiasFeatures, Profile


def with_features(features: AttributeFeatures, extra: Tensor) -> AttributeFeatures:
    """Append features int64 [n] to a list, without those that are there.

    What is not known of the new ones is 0 (scores, stability) or NaN (side effects, causal scores); profiles leave them as they are.
    """
    new = extra[~torch.isin(extra, features.features)].unique()
    n = len(new)
    if not n:
        return features

    def wider(table: Tensor, value: float) -> Tensor:
        return torch.cat([table, table.new_full((*table.shape[:-1], n), value)], dim=-1)

    def longer(profile: Profile) -> Profile:
        t, k, r, _, height, width = profile.delta.shape
        return replace(profile, delta=torch.cat([profile.delta, profile.delta.new_zeros(t, k, r, n, height, width)], dim=3))

    return replace(
        features,
        features=torch.cat([features.features, new]),
        scores=wider(features.scores, 0.0),
        scores_by_level=wider(features.scores_by_level, 0.0),
        stability=wider(features.stability, 0.0),
        side_effect=wider(features.side_effect, math.nan),
        causal=wider(features.causal, math.nan),
        profiles={source: longer(p) for source, p in features.profiles.items()},
    )


def only_profile(bias: BiasFeatures, source: str) -> BiasFeatures:
    """Return the file with this profile alone.

    For the attributes that have it.
    """
    changed = {
        a: replace(f, profiles={source: f.profiles[source]}, default=source if f.default == source else "") if source in f.profiles else f
        for a, f in bias.attributes.items()
    }
    return replace(bias, attributes=changed)


def with_profile(bias: BiasFeatures, attribute: str, profile: Profile, default: bool = False) -> BiasFeatures:
    """Return the file with another profile of an attribute.

    It replaces one of the same source. ``default``: make it the profile that is used if none is named.
    """
    features = bias.attribute(attribute)
    chosen = profile.source if default else features.default
    changed = replace(features, profiles={**features.profiles, profile.source: profile}, default=chosen)
    return replace(bias, attributes={**bias.attributes, attribute: changed})
