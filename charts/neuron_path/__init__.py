"""Charts of neuron paths: paths, their effects, galleries, leakage and pruning."""
