"""Feature sets in ComfyUI: recording while sampling or from pictures.

Begin at ``recording``.
"""
