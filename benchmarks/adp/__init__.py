"""Benchmarks of predictors: accuracy, samplers, cost of training, and a new attribute."""
