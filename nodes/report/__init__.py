"""Nodes that count classes in images and write fairness reports.

Begin at ``attribute_histogram``. Reports lie in output/equipoise/reports.
"""
