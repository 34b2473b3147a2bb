"""Nodes that load and train sparse autoencoders.

Begin at ``load_sae``. Files lie in models/equipoise/sae.
"""
