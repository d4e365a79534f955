"""Interventions on the device, measured in turn."""
