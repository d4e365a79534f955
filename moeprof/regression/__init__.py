"""Runs of two sides to verdicts: which stage got slower, by how much, how surely, why. Pure."""
