"""Benchmarks of the running ComfyUI: ledger, live bar, overhead of patches, endurance."""
