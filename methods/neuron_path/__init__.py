"""Neuron paths (Neuron Path, ICLR 2025): search, effects, audit and edits of a vision transformer.

Begin at ``search``. The file format is in ``models/neuron_path``.
"""
