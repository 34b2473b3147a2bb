"""Benchmarks of neuron paths: speed beside the naive algorithm, effects, and a planted leak."""
