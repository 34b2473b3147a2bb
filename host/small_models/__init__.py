"""The small models of the pack as ComfyUI's MODEL, CLIP and VAE.

Begin at ``adm_model`` (without text) or ``text_model``.
"""
