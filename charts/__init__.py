"""Figures and pages, as pictures or HTML, from numbers alone.

Begin at ``core/style``.
"""
