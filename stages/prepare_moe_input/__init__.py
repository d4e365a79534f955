"""Step prepare_moe_input: sort (token, expert) pairs by expert."""
