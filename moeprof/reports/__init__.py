"""Runs as text, JSON and files for people: value in, string or renderable out."""
