"""Ball arithmetic (python-flint): mixed models whose every number is an enclosure of the true one."""
