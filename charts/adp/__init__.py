"""Charts of predictors: accuracy by noise level, and what calibration tried."""
