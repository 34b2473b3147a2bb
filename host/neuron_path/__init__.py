"""Neuron paths in ComfyUI: connected vision models as editable copies, searches, and edited models.

Begin at ``search``.
"""
