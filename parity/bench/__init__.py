"""Speed: problems, timings taken in turns, base against head, and history."""
