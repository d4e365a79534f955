"""Step gather: weighted sum of the rows of each token."""
