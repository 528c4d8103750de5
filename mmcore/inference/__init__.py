"""Inference about the fixed effects: degrees of freedom, tests, comparisons of models."""
