"""Long statistical studies of the estimators; results are committed beside the command that made them."""
