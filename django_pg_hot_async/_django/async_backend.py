"""django-async-backend: its connections are tracked as they are opened.

Imported only where that package is installed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from django.utils.functional import cached_property
from django_async_backend.db.backends.postgresql.async_base import (
    AsyncDatabaseWrapper,
)
from django_async_backend.db.utils import DatabaseErrorWrapper

from django_pg_hot_async import conf
from django_pg_hot_async._core.connection import state_of
from django_pg_hot_async._core.patches import Patch

from . import connections
from .backend import Noticing


class NoticingErrorWrapper(Noticing, DatabaseErrorWrapper):  # type: ignore[misc]
    """The backend's `DatabaseErrorWrapper`, taking notice of what passes."""


def _configure_connection(original: Any) -> Any:
    """Wrap ``_configure_connection()``, awaited for each connection that is opened."""

    async def configure_connection(self: Any, connection: Any) -> Any:
        commit = await original(self, connection)
        if connections.is_ours(self, connection):
            state = state_of(connection) or connections.track(connection, self.alias)
            state.notes_checkouts = True
        return commit

    return configure_connection


def _init_connection_state(original: Any) -> Any:
    """Wrap ``init_connection_state()``, awaited at each connect and each checkout."""

    # No coroutine of its own: one costs more than what this does.
    def init_connection_state(self: Any) -> Awaitable[None]:
        if conf.is_on and self._pg_version is not None:
            self._pg_version = self.connection.pgconn.server_version
        begun: Awaitable[None] = original(self)
        return begun

    return init_connection_state


def _wrap_database_errors(original: Any) -> Any:
    noticing = cached_property(NoticingErrorWrapper)
    noticing.__set_name__(AsyncDatabaseWrapper, "wrap_database_errors")
    return noticing


def start() -> None:
    """Nothing is left to do once the patches are installed."""


PATCHES = (
    Patch(
        AsyncDatabaseWrapper,
        "_configure_connection",
        _configure_connection,
        ("self", "connection"),
    ),
    Patch(
        AsyncDatabaseWrapper,
        "init_connection_state",
        _init_connection_state,
        ("self",),
    ),
    Patch(
        AsyncDatabaseWrapper,
        "wrap_database_errors",
        _wrap_database_errors,
        is_inherited=True,
    ),
)
"""What is replaced in django-async-backend. Tried on 6.1.5."""
