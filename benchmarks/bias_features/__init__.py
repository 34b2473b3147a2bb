"""Benchmarks of autoencoders, attribution and steering, with their reference code."""
