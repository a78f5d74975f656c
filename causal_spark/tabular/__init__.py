"""What estimators on rows of individuals share: columns of numbers out of raw covariates."""
