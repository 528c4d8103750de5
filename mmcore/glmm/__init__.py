"""Generalized linear models, with and without random effects."""
