"""Linear mixed models and linear models: criterion, starting values, fits."""
