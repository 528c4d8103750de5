"""The published site: engines side by side, speed, where R is wrong; static pages that need nothing else."""
