"""Data sets of labelled images (Hugging Face imagefolder), and the training of classifiers on them.

Begin at ``image_folder``, which documents the format on disk.
"""
