"""Distribution guidance in ComfyUI: the patch, and what learns and calibrates moves.

Begin at ``apply.apply_guidance``.
"""
