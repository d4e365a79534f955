"""Step routing: which eight experts each token goes to, and with what weights."""
