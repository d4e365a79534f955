"""Every byte of records on disk, and where to find them."""
