"""Nodes that load, train, save and describe attribute distribution predictors.

Begin at ``load_adp``. Files lie in models/equipoise/adp.
"""
