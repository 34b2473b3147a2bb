"""Parts that benchmarks share: ComfyUI as a process or server, stored stages, random models."""
