"""Captures of other profilers to records: read, choose, split, attribute. Pure but for reading."""
