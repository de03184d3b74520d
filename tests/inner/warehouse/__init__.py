"""Items that need hstore and citext, and migrations that create both."""
