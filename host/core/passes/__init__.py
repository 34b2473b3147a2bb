"""One batch sampled in several passes of a few images, with one assignment over all.

Begin at ``passes.draw_in_passes``.
"""
