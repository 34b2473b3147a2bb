"""Labels of pictures: class probabilities from any source, and the CSV files that hold them.

Begin at ``labels``.
"""
