"""What takes Django's places: the core is told of connections, settings and types."""
