"""One file a solution; each only composes stages and exposes SOLUTION."""
