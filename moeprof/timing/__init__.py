"""One clock a file: each takes a ``Forward`` and a device and returns raw samples."""
