"""Kernel libraries that stages call, each with the torch twin that stands in for it."""
