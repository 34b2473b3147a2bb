"""Nodes that load the small models of the pack, and diffusion models without text.

Begin at ``load_unconditional_diffusion``.
"""
