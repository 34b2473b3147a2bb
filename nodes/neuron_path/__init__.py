"""Nodes that search, show and edit the neurons that decide a classifier's label.

Begin at ``find_neuron_path``. Files lie in models/equipoise/neuron_paths.
"""
