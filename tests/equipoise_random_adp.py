"""Give tests the benchmarks' random ADP under a path."""

from equipoise.benchmarks.core.random_adp import KNOTS, random_adp, random_move, random_predictor

__all__ = ["KNOTS", "random_adp", "random_move", "random_predictor"]
