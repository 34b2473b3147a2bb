"""Training of k-sparse autoencoders of h, position by position.

Begin at ``train``. The file format is in ``models/sae``.
"""
