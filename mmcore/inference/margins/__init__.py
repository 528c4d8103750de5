"""Estimated means, contrasts and marginal effects."""
