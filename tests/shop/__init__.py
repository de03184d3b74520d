"""A shop whose products need hstore and citext."""
