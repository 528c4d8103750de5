"""Residuals at every level."""
