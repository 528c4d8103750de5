"""What every fitted model is and tells: estimates, labels, predictions, simulated responses."""
