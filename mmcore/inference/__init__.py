"""What a fit says of its parameters: tests, intervals, robust covariances, marginal means."""
