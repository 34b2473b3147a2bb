"""Charts of classifiers that were trained on data sets: how they treat groups."""
