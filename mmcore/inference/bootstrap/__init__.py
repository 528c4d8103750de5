"""Bootstrap: responses or rows drawn again, and the model fitted to each."""
