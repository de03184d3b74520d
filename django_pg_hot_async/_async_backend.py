"""django-async-backend: OIDs are read where it awaits, not where a loop is held.

Its wrappers await ``_configure_connection()`` for each connection they open, and
its pool for each that it adds; ``init_connection_state()`` is awaited at each
connect and each checkout. Imported only where that package is installed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import psycopg
from django.utils.functional import cached_property
from django_async_backend.db import async_connections
from django_async_backend.db.backends.postgresql.async_base import (
    AsyncDatabaseWrapper,
)
from django_async_backend.db.utils import DatabaseErrorWrapper

from . import _connections
from ._errors import Noticing
from ._link import link_of
from .conf import Trust

# Of AsyncDatabaseWrapper these three, ._pg_version and .wrap_database_errors:
# django-async-backend 6.1.5.
_configure_connection = AsyncDatabaseWrapper._configure_connection
_init_connection_state = AsyncDatabaseWrapper.init_connection_state
_cursor = AsyncDatabaseWrapper._cursor


class NoticingErrorWrapper(Noticing, DatabaseErrorWrapper):  # type: ignore[misc]
    """The backend's `DatabaseErrorWrapper`, taking notice of what passes."""


async def configure_connection(wrapper: Any, connection: Any) -> Any:
    """Configure a new connection; read its server's OIDs in a worker of the pool."""
    commit = await _configure_connection(wrapper, connection)
    if _connections.is_ours(wrapper, connection):
        link = link_of(connection) or _connections.look_after(connection, wrapper.alias)
        link.tells_checkouts = True
        if connection is not wrapper.connection and link.awaits_read:
            await link.averify(connection)
    return commit


def init_connection_state(wrapper: Any) -> Awaitable[None]:
    """Begin a checkout. No coroutine of its own: one costs more than what this does."""
    link = link_of(wrapper.connection)
    if link is not None and link.memory.trust >= Trust.CHECKOUT:
        link.renew()
    if wrapper._pg_version is not None:
        wrapper._pg_version = wrapper.connection.pgconn.server_version
    state: Awaitable[None] = _init_connection_state(wrapper)
    return state


async def cursor(wrapper: Any, name: str | None = None) -> Any:
    """Create a cursor, and read where trust was not given yet or has ended."""
    made = await _cursor(wrapper, name)
    link = link_of(wrapper.connection)
    if link is not None and link.awaits_read:
        with wrapper.wrap_database_errors:
            await link.averify(wrapper.connection)
    return made


def open_wrappers() -> list[Any]:
    """Return the async wrappers of the running task; none outside of a task."""
    try:
        return list(async_connections.all(initialized_only=True))
    except RuntimeError:
        return []


async def verify_open() -> None:
    """Read where trust has ended, lest a query has to in its middle."""
    for wrapper in open_wrappers():
        link = link_of(wrapper.connection)
        if link is not None and link.awaits_read:
            # A connection that is lost is for the next query to meet.
            with suppress(psycopg.Error):
                await link.averify(wrapper.connection)


def install() -> None:
    """Read where the backend awaits."""
    AsyncDatabaseWrapper._configure_connection = configure_connection
    AsyncDatabaseWrapper.init_connection_state = init_connection_state
    AsyncDatabaseWrapper._cursor = cursor
    noticing = cached_property(NoticingErrorWrapper)
    noticing.__set_name__(AsyncDatabaseWrapper, "wrap_database_errors")
    AsyncDatabaseWrapper.wrap_database_errors = noticing


def uninstall() -> None:
    """Leave the backend its own."""
    AsyncDatabaseWrapper._configure_connection = _configure_connection
    AsyncDatabaseWrapper.init_connection_state = _init_connection_state
    AsyncDatabaseWrapper._cursor = _cursor
    if "wrap_database_errors" in vars(AsyncDatabaseWrapper):
        del AsyncDatabaseWrapper.wrap_database_errors
