"""Nodes that find, show, calibrate and turn bias features.

Begin at ``bias_feature_steer``. Files lie in models/equipoise/bias_features.
"""
