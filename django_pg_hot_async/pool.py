"""Hooks for psycopg pools, and connections, of a project's own.

    from django_pg_hot_async import pool
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    ConnectionPool(
        conninfo, configure=pool.configure("shop"), check=pool.check("shop")
    )
    AsyncConnectionPool(
        conninfo, configure=pool.aconfigure("shop"), check=pool.acheck("shop")
    )

The name labels what is remembered, for the log, `server_changed` and `forget()`. It
need not be in DATABASES; where it is, the trust set for that alias holds.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

__all__ = ["acheck", "aconfigure", "check", "configure"]


def configure(alias: str) -> Callable[[psycopg.Connection[Any]], None]:
    """Return a ``configure`` for `ConnectionPool` or `NullConnectionPool`.

    Called for each new connection, in a worker of the pool; or call it with a
    connection of your own. Reads the types: one round trip, and a second where the
    server does not confirm what it answered before. How long they are trusted then
    is for `TRUST` to say. The status stays IDLE. Nothing is done where the server is
    not PostgreSQL, or PG_HOT_ASYNC leaves the alias to Django. Raise the database's
    own error.
    """

    return functools.partial(_configure, alias)


def aconfigure(
    alias: str,
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """Return a ``configure`` for the async pools; see `configure`."""

    return functools.partial(_aconfigure, alias)


def check(alias: str) -> Callable[[psycopg.Connection[Any]], None]:
    """Return a ``check`` for `ConnectionPool`, Django's own included (6.1 and on).

    Called before a connection is handed out. One round trip, as psycopg's own
    `check_connection`: it fails where the connection is lost, and has the server
    confirm its types as well; where it does not, a second one reads them. So an idle
    connection that a pooler moved is handed out with the OIDs of the server that it
    leads to now.
    """

    return functools.partial(_check, alias)


def acheck(
    alias: str,
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """Return a ``check`` for `AsyncConnectionPool`; see `check`."""

    return functools.partial(_acheck, alias)


# Not functions within those: DATABASES is pickled where Django's tests run in parallel
# and processes are spawned.


def _configure(alias: str, connection: psycopg.Connection[Any]) -> None:
    link = _look_after(connection, alias, is_own=True)
    if link is not None:
        link.verify(connection)


async def _aconfigure(alias: str, connection: psycopg.AsyncConnection[Any]) -> None:
    link = _look_after(connection, alias, is_own=True)
    if link is not None:
        await link.averify(connection)


def _check(alias: str, connection: psycopg.Connection[Any]) -> None:
    link = _look_after(connection, alias, is_checked=True)
    if link is None or not link.verify(connection):
        from psycopg_pool import ConnectionPool

        ConnectionPool.check_connection(connection)


async def _acheck(alias: str, connection: psycopg.AsyncConnection[Any]) -> None:
    link = _look_after(connection, alias, is_checked=True)
    if link is None or not await link.averify(connection):
        from psycopg_pool import AsyncConnectionPool

        await AsyncConnectionPool.check_connection(connection)


def _look_after(
    connection: Any, alias: str, *, is_own: bool = False, is_checked: bool = False
) -> Any:
    """Return the link of *connection*, made if it has none; None if it is not ours."""
    link = getattr(connection, "_django_pg_hot_async", None)
    if link is not None and not is_checked:
        return link
    # Not at import: this module may be imported by a settings file.
    from . import _connections, _work_units, conf

    if conf.is_off(alias):
        return None
    if link is None and _connections.is_postgresql(connection):
        link = _connections.look_after(connection, alias, in_pool=True)
        _work_units.find_celery()
        if is_own:
            # Not by check(), which Django's own pool may have.
            _connections.mark_own(connection, link)
    if is_checked:
        _connections.mark_checked(connection)
    return link
