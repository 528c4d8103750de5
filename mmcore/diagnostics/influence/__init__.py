"""Influence by one step: what each row or group does to the estimates, without refits."""
