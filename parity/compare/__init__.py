"""From the results of two engines to verdicts."""
