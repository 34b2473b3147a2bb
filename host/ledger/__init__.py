"""Balance ledgers in ComfyUI: their files, and the part of each run in them.

Begin at ``ledgers``.
"""
