"""Nodes that load classifiers and label the pictures of feature sets.

Begin at ``label_features_with_classifier``.
"""
