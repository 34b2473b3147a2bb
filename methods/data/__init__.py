"""Feature sets of recorded h: on disk, in memory-bounded streams, and while they are recorded.

Begin at ``feature_set``, which documents the format on disk.
"""
