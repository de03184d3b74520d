"""Hooks for psycopg pools, and connections, of a project's own.

    from django_pg_hot_async import pool
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    ConnectionPool(conninfo, configure=pool.configure("shop"))
    AsyncConnectionPool(conninfo, configure=pool.aconfigure("shop"))

The name labels what is remembered: in the log, in `server_changed`, for `forget()`. It
need not be in DATABASES. If it is, the TRUST of that alias holds for the pool, too.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

__all__ = ["aconfigure", "configure"]


def configure(alias: str) -> Callable[[psycopg.Connection[Any]], None]:
    """Make a ``configure`` for `ConnectionPool` or `NullConnectionPool`.

    The pool calls it for each new connection. You can also call it yourself, with a
    connection that belongs to no pool. The connection is tracked from then on. No query
    is sent, and the transaction status does not change.

    It ignores a server that is not PostgreSQL, and an alias that PG_HOT_ASYNC leaves to
    Django. Raise `TypeError` if the argument is neither a `psycopg.Connection` nor a
    wrapper around one; a pool logs it, and it names `aconfigure` where that is wanted.
    """
    _check_label("configure", alias)
    return functools.partial(_configure, alias)


def aconfigure(
    alias: str,
) -> Callable[[psycopg.AsyncConnection[Any]], Awaitable[None]]:
    """Make a ``configure`` for `AsyncConnectionPool` or `AsyncNullConnectionPool`.

    It awaits nothing, and raises `TypeError` for a `psycopg.Connection`. `configure`
    has the other details.
    """
    _check_label("aconfigure", alias)
    return functools.partial(_aconfigure, alias)


def _check_label(hook: str, alias: object) -> None:
    # A pool that was given pool.configure itself would call it with a connection.
    if not isinstance(alias, str):
        raise TypeError(
            f"pool.{hook}() takes the name of an alias or a label, and returns the"
            f' hook: configure=pool.{hook}("shop"); got {alias!r}'
        )


# Not closures: DATABASES may hold a hook, and Django pickles DATABASES when its tests
# run in parallel in spawned processes.


def _configure(alias: str, connection: Any) -> None:
    _track("configure", alias, connection)


def _aconfigure(alias: str, connection: Any) -> Awaitable[None]:
    # Before anything is awaited: a ConnectionPool would not await it.
    _track("aconfigure", alias, connection)
    return _nothing()


async def _nothing() -> None:
    pass


def _track(hook: str, alias: str, connection: Any) -> None:
    # Not at import: this module may be imported by a settings file.
    from django.apps import apps

    from . import conf
    from ._core.connection import state_of, unwrapped
    from ._django import connections

    found = unwrapped(connection)
    is_async = isinstance(found, psycopg.AsyncConnection)
    if found is None or is_async != (hook == "aconfigure"):
        wanted, other = _FOR[hook]
        hint = "" if found is None else f"; for this one, use pool.{other}({alias!r})"
        raise TypeError(
            f"pool.{hook}({alias!r}) was called with {connection!r}; it wants a"
            f" psycopg.{wanted}{hint}"
        )
    if apps.ready and not conf.is_on:
        return  # The app is not installed, or stands aside.
    if (
        not conf.is_off(alias)
        and state_of(found) is None
        and connections.is_postgresql(found)
    ):
        connections.track(found, alias, in_pool=True)


_FOR = {
    "configure": ("Connection", "aconfigure"),
    "aconfigure": ("AsyncConnection", "configure"),
}
"""What each hook is for, and the hook that is for the other."""
