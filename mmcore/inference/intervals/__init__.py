"""Profiles, confidence intervals and standard errors of variance components."""
