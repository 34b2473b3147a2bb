"""Nodes of Distribution Guidance: targets, the patch, and what learns and calibrates moves.

Begin at ``distribution_guidance``.
"""
