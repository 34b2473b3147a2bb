"""Charts of bias features: ranked lists, the atlas, and sweeps over strengths."""
