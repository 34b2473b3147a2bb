"""Label sources in ComfyUI: attribute classifiers and CLIP, and the cache of what they read.

Begin at ``labelling``.
"""
