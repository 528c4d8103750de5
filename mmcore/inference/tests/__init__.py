"""Tests of hypotheses about a fitted model, and comparisons of models."""
