"""Fresh processes of two sides, measured and judged: what ``moeprof check`` does on a device."""
