"""Nodes that save and load data sets of images, and train and test classifiers on them.

Begin at ``save_balanced_dataset``. Data sets lie in output/equipoise/datasets.
"""
