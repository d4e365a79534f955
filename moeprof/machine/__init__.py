"""The machine: what is recorded of it, what it can measure, Triton without a GPU."""
