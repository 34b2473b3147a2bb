"""Training and figures of the attribute distribution predictor.

Begin at ``train``. The file format is in ``models/adp``.
"""
