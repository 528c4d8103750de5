"""Covariance of the fixed effects that is robust to the model of the errors."""
