"""Nodes that record and load feature sets.

Begin at ``record_features``. Sets lie in output/equipoise/features.
"""
