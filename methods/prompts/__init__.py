"""Balanced prompts: a prompt per image, so that the shares of a target come from words alone.

Begin with :mod:`.slots`: it fills the slots of a prompt with the words of a cell. :mod:`..core.cells_by_index` decides which image gets
which cell, for whole batches and for parts of one alike.
"""
