"""Training of sparse autoencoders with ComfyUI's progress and device.

Begin at ``train``.
"""
