"""Many solutions on many workloads, read from their records: what ``moeprof bench`` shows."""
