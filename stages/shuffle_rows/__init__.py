"""Step shuffle_rows: bring the hidden states of each pair into expert order."""
