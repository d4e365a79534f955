"""One clock a file: each takes a ``StagedCall`` and a device and returns raw samples."""
