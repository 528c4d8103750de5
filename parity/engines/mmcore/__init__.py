"""mmcore as an engine."""
