"""Nodes that give every image of a batch a prompt of its own.

Begin at ``balanced_prompts``.
"""
