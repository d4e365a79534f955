"""Backends that perform several steps in one call."""
