"""Charts of data sets and of the classifiers trained on them."""
