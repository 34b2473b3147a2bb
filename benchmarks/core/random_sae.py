"""Make random autoencoders and bias features, for tests and for measurements of cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...models.bias_features import CLASS_DIFFERENCE, LEARNED, AttributeFeatures, BiasFeatures, Profile
from ...models.sae import SaeFile, SparseAutoencoder

KNOTS = torch.tensor([-12.0, -6.0, 0.0, 6.0, 12.0])
"""Wider than the log-SNR range of any sampler, so that profiles act at every call."""


def random_sae(channels: int, site: str, base_model: str, latents: int = 256, k: int = 8, seed: int = 0) -> SaeFile:
    """Make an autoencoder with random atoms and statistics; the encoder is the transposed decoder."""
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(channels, latents, k, KNOTS)
    with torch.no_grad():
        atoms = torch.nn.functional.normalize(torch.randn(latents, channels, generator=generator), dim=1)
        sae.decoder.copy_(atoms)
        sae.encoder.copy_(atoms)
        sae.mean.copy_(0.1 * torch.randn(sae.mean.shape, generator=generator))
        sae.scale.copy_(0.5 + torch.rand(sae.scale.shape, generator=generator))
    return SaeFile(sae.eval().requires_grad_(False), site, base_model, {"licence": "test"})


def random_profile(classes: int, features: int, size: float, seed: int = 0, source: str = CLASS_DIFFERENCE, rows: int = 1) -> Profile:
    """Make a profile of random activations, normal times ``size``, by grid place.

    ``rows`` is the number of classes if the profile depends on the reading, else 1.
    """
    generator = torch.Generator().manual_seed(seed + 1000)
    delta = size * torch.randn(len(KNOTS), classes, rows, features, 4, 4, generator=generator)
    return Profile(KNOTS, delta, torch.ones(len(KNOTS), classes), "seeded" if rows == 1 else "reading", source)


def random_bias(sae: SaeFile, attributes: Mapping[str, tuple[str, ...]], features: int = 12, size: float = 4.0) -> BiasFeatures:
    """Make bias features with ``features`` random latents for each attribute.

    Each attribute gets a class-difference profile and a learned profile, which is the default.
    """
    by_attribute = {}
    for number, (attribute, classes) in enumerate(attributes.items()):
        k, generator = len(classes), torch.Generator().manual_seed(number)
        latents = torch.randperm(sae.sae.latents, generator=generator)[:features]
        scores = torch.zeros(k, features)
        scores[torch.arange(features) % k, torch.arange(features)] = torch.linspace(1, 0.1, features)
        scores -= scores.mean(0)
        profiles = {
            CLASS_DIFFERENCE: random_profile(k, features, size, number),
            LEARNED: random_profile(k, features, size, number + 50, LEARNED),
        }
        by_attribute[attribute] = AttributeFeatures(
            classes,
            latents,
            scores,
            scores.expand(len(KNOTS), -1, -1).clone(),
            torch.rand(k, features, generator=generator),
            torch.rand(features, generator=generator),
            torch.full((k, features), float("nan")),
            KNOTS,
            profiles,
            LEARNED,
        )
    return BiasFeatures(by_attribute, sae.site, sae.base_model, sae.digest, sae.sae.channels, sae.sae.latents)
