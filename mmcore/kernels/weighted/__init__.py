"""Factors of V whose weights change from step to step, one for each shape of Z."""
