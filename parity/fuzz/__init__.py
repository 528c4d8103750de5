"""Made-up models, and properties that hold for each of them."""
