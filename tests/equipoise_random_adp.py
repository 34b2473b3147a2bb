"""The random ADP of the benchmarks, by the path at which tests load it."""

from equipoise.benchmarks.core.random_adp import KNOTS, random_adp, random_move, random_predictor

__all__ = ["KNOTS", "random_adp", "random_move", "random_predictor"]
