"""Feature sets, recording, data sets of images, and training of classifiers on them.

Begin at ``feature_set``, which documents the format on disk.
"""
