"""Two records, or many: what may be compared, and the waterfall between them. Pure."""
