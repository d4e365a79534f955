"""Solutions measured in turn: the process that measures, and the one that watches it."""
