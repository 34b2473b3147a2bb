"""Algorithms and trainings on torch alone; nothing here imports ComfyUI.

Begin at ``core/run``.
"""
