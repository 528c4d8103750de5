"""Inference: is an effect real, and how large may it be."""
