"""The history of a solution's times, in a terminal, as JSON and as one HTML page."""
