"""The work that was needed beside the work that was done, and what it cost. Pure."""
