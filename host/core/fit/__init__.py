"""Gradients through a MODEL's decoder, for fits of moves and profiles.

Begin at ``session``; ``differentiable`` makes a MODEL a function that gradients go through.
"""
