"""A clean end for processes that have a connection pool."""

from __future__ import annotations

import atexit

from django.db import connections


def close_pools() -> None:
    """Close Django's connection pools and end their threads."""
    for connection in connections.all():
        connection.close_pool()  # type: ignore[attr-defined]


def close_pools_at_exit() -> None:
    """Have the pools closed when the process ends.

    Django leaves that to the garbage collector. With psycopg_pool 3.3 on Python
    3.13 it then waits for threads that run no more: 20 seconds at each exit.
    """
    atexit.register(close_pools)
