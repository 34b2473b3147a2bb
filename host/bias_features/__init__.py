"""Bias features in ComfyUI: the patch, trials, and what learns and calibrates profiles.

Begin at ``apply.apply_steering``.
"""
