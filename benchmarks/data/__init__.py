"""Benchmarks of classifiers that are trained on guided or steered images."""
