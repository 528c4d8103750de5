"""What everything is written in: cases, quantities, results, gates, verdicts."""
