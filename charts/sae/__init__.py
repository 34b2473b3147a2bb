"""Charts of autoencoders: unexplained variance by noise level, and losses of training."""
