"""The random autoencoder of the benchmarks, by the path at which tests load it."""

from equipoise.benchmarks.core.random_sae import KNOTS, random_bias, random_profile, random_sae

__all__ = ["KNOTS", "random_bias", "random_profile", "random_sae"]
