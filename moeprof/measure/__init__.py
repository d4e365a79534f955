"""Calls on a device: inputs, the forward, correctness, the passes, the record."""
