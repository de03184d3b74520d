"""`status()` for other libraries, each behind an extra of this package's own.

Nothing here is imported unless a project does so, and nothing here connects.
"""
