"""The small models that ship with the pack, and their loader.

Begin at ``weights``.
"""
