"""Feature sets and data sets in ComfyUI: recording, pictures, and training of classifiers.

Begin at ``recording``.
"""
