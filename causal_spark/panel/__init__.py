"""Panel estimators, tuning and variances: arrays in, arrays out. Knows nothing of Spark or files."""
