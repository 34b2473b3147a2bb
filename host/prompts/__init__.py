"""Balanced prompts in ComfyUI: a prompt per image, as lists that the host maps over or as one conditioning with a row per image.

Begin at ``balance_prompts``.
"""
