"""What benchmarks share: a ComfyUI in this process or as a server, stages, and random models."""
