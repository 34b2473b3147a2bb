"""Give tests the benchmarks' random autoencoder under a path."""

from equipoise.benchmarks.core.random_sae import KNOTS, random_bias, random_profile, random_sae

__all__ = ["KNOTS", "random_bias", "random_profile", "random_sae"]
