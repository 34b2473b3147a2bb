"""Data sets of labelled images in ComfyUI, and the training and testing of classifiers on them.

Begin at ``datasets``.
"""
