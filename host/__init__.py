"""The only code that imports ComfyUI: patches, sampling, files and memory for the methods.

Begin at ``core/patch``.
"""
