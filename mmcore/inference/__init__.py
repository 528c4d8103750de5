"""Inference about a fitted model."""
