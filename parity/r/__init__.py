"""R at a distance: a process of its own, called by the names of functions."""
