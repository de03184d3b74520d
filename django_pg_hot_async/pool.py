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

    def configure_connection(connection: psycopg.Connection[Any]) -> None:
        link = _look_after(connection, alias, is_own=True)
        if link is not None:
            link.verify(connection)

    return configure_connection


def aconfigure(
    alias: str,
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """Return a ``configure`` for the async pools; see `configure`."""

    async def configure_connection(connection: psycopg.AsyncConnection[Any]) -> None:
        link = _look_after(connection, alias, is_own=True)
        if link is not None:
            await link.averify(connection)

    return configure_connection


def check(alias: str) -> Callable[[psycopg.Connection[Any]], None]:
    """Return a ``check`` for `ConnectionPool`, Django's own included (6.1 and on).

    Called before a connection is handed out. One round trip, as psycopg's own
    `check_connection`: it fails where the connection is lost, and has the server
    confirm its types as well; where it does not, a second one reads them. So an idle
    connection that a pooler moved is handed out with the OIDs of the server that it
    leads to now.
    """

    def check_connection(connection: psycopg.Connection[Any]) -> None:
        link = _look_after(connection, alias, is_checked=True)
        if link is None or not link.verify(connection):
            from psycopg_pool import ConnectionPool

            ConnectionPool.check_connection(connection)

    return check_connection


def acheck(
    alias: str,
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """Return a ``check`` for `AsyncConnectionPool`; see `check`."""

    async def check_connection(connection: psycopg.AsyncConnection[Any]) -> None:
        link = _look_after(connection, alias, is_checked=True)
        if link is None or not await link.averify(connection):
            from psycopg_pool import AsyncConnectionPool

            await AsyncConnectionPool.check_connection(connection)

    return check_connection


def _look_after(
    connection: Any, alias: str, *, is_own: bool = False, is_checked: bool = False
) -> Any:
    """Return the link of *connection*, made if it has none; None if it is not ours."""
    link = getattr(connection, "_django_pg_hot_async", None)
    if link is not None and not is_checked:
        return link
    # Not at import: this module may be imported by a settings file.
    from . import _connections, conf

    if conf.is_off(alias):
        return None
    if link is None and _connections.is_postgresql(connection):
        link = _connections.look_after(connection, alias, in_pool=True)
        if is_own:
            # Not by check(), which Django's own pool may have.
            _connections.mark_own(connection, link)
    if is_checked:
        _connections.mark_checked(connection)
    return link
