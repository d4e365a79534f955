"""Many records as one value that every format of ``moeprof report`` is made from."""
