"""A Django project to run commands of, with this package's app or without it."""
