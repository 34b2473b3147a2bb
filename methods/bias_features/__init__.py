"""Bias features (DiffLens, CVPR 2025): attribution, ranking, profiles, calibration and steering.

Begin at ``find`` and ``run``. The file format is in ``models/bias_features``.
"""
