"""Nodes that record feature sets, save data sets of images, and train classifiers on them.

Begin at ``record_features``. Sets lie below output/equipoise.
"""
