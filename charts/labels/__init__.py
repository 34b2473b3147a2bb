"""Charts of labels: shares of classes, and sheets of pictures per class."""
