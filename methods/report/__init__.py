"""Where images came from, read off a queued graph without asking ComfyUI."""
