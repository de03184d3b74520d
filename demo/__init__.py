"""The demo: an upgrade of PostgreSQL under load, on a page to watch it on.

``python -m demo`` runs it from the top of the repository. Two fleets of workers serve
``examples/asgi_project``, one with the app and one without it. A project copies files
from there, not from here.
"""
