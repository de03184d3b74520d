"""Hooks for psycopg pools, and connections, of a project's own.

    from django_pg_hot_async import pool
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    ConnectionPool(conninfo, configure=pool.configure("shop"))
    AsyncConnectionPool(conninfo, configure=pool.aconfigure("shop"))

The name labels what is remembered, for the log, `server_changed` and `forget()`. It
need not be in DATABASES; where it is, the trust set for that alias holds.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

__all__ = ["aconfigure", "configure"]


def configure(alias: str) -> Callable[[psycopg.Connection[Any]], None]:
    """Return a ``configure`` for `ConnectionPool` or `NullConnectionPool`.

    It is called for each new connection; or call it with a connection of your own.
    The connection is tracked from then on. Nothing is sent, and its status stays as it
    is. Nothing is done where the server is not PostgreSQL, or PG_HOT_ASYNC leaves the
    alias to Django. Raise `TypeError` where what it is called with is not a psycopg
    connection, nor stands in front of one.
    """
    return functools.partial(_configure, alias)


def aconfigure(
    alias: str,
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """Return a ``configure`` for `AsyncConnectionPool`; see `configure`."""
    return functools.partial(_aconfigure, alias)


# Not functions within those: DATABASES is pickled where Django's tests run in parallel
# and processes are spawned.


def _configure(alias: str, connection: Any) -> None:
    # Not at import: this module may be imported by a settings file.
    from . import conf
    from ._core.connection import state_of, unwrapped
    from ._django import connections

    found = unwrapped(connection)
    if found is None:
        raise TypeError(
            f"pool.configure({alias!r}) was called with {connection!r}; it wants a"
            " psycopg.Connection or psycopg.AsyncConnection"
        )
    if (
        not conf.is_off(alias)
        and state_of(found) is None
        and connections.is_postgresql(found)
    ):
        connections.track(found, alias, in_pool=True)


async def _aconfigure(alias: str, connection: Any) -> None:
    _configure(alias, connection)
