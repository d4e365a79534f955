"""Record to profile: where every nanosecond went, and whether to believe it. Pure."""
