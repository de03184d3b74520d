"""What Django's connection pool leaves to the project."""

from __future__ import annotations

import atexit
from typing import Any

from django.db import connections
from psycopg import OperationalError
from psycopg_pool import ConnectionPool


def check_connection(connection: Any) -> None:
    """Refuse a connection that has ended, and look after the others at once.

    By itself the pool of psycopg_pool 3.3 finds out one by one, and the request
    that is looking for a connection waits after each: 1, 2, 4 seconds ... After a
    cutover that has cut them all, the first request was seen to wait 30 seconds.
    """
    try:
        ConnectionPool.check_connection(connection)
    except OperationalError:
        connections["default"].pool.check()  # type: ignore[attr-defined]
        raise


def close_pools_at_exit() -> None:
    """Have the pools closed when the process ends.

    Django leaves that to the garbage collector. With psycopg_pool 3.3 on Python
    3.13 it then waits for threads that run no more: 20 seconds at each exit.
    """
    atexit.register(close_pools)


def close_pools() -> None:
    """Close the pools and end their threads."""
    for connection in connections.all():
        connection.close_pool()  # type: ignore[attr-defined]
