"""Benchmarks of distribution guidance, beside the paper's losses and other baselines."""
