"""Telling somebody elsewhere what a check found."""
