"""The survey of many records as one HTML page that needs nothing beside itself."""
