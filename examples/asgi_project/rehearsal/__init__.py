"""A cutover under load, rehearsed: servers, routes, load and what came of it.

Nothing here is part of the example's own Django project.
"""
