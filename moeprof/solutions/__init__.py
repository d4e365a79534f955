"""Solutions and backends, found by file name and identified by their source."""
