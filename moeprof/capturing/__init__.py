"""Running a solution under another maker's profiler: find it, start it, keep what it made clean."""
