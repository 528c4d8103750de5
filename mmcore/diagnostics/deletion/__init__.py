"""Influence by refits: the model without each row or group."""
