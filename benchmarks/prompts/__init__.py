"""Benchmarks of balanced prompts: FD and drift by batch size, measured by the judge on the small text model."""
