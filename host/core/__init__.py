"""ComfyUI for all systems: the patch of a MODEL, sites, sampling, trials, files and progress.

Begin at ``patch.patch_model``; ``sites`` knows which models can be patched where.
"""
