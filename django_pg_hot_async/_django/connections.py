"""Which connections are tracked, and what is done for a new one."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db.backends.base.base import NO_DB_ALIAS

from django_pg_hot_async import conf
from django_pg_hot_async._core import connection as _connection
from django_pg_hot_async._core import dumping
from django_pg_hot_async._core.connection import ConnectionState, state_of, unwrapped
from django_pg_hot_async._core.runtime import runtime


def state_behind(connection: Any) -> ConnectionState | None:
    """Return the state of a connection of Django's; None where it is not tracked."""
    if connection is None:
        return None
    state = state_of(connection)
    if isinstance(state, ConnectionState):
        return state
    inner = unwrapped(connection)
    return None if inner is None else state_of(inner)


def is_ours(wrapper: Any, connection: Any) -> bool:
    """Whether what a Django connection connects with is to be tracked."""
    return (
        conf.is_on
        and getattr(wrapper, "vendor", None) == "postgresql"
        and getattr(wrapper, "alias", NO_DB_ALIAS) != NO_DB_ALIAS
        and not conf.is_off(wrapper.alias)
        and is_postgresql(unwrapped(connection))
    )


def is_postgresql(connection: Any) -> bool:
    """Whether a connection is psycopg 3's, and leads to a PostgreSQL.

    Servers that only speak its protocol, such as CockroachDB, are left alone.
    """
    return (
        isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection))
        and connection.info.vendor == "PostgreSQL"
        # What psycopg.crdb tells CockroachDB by, on a connection of any class.
        and connection.pgconn.parameter_status(b"crdb_version") is None
    )


def track(connection: Any, alias: str, *, in_pool: bool = False) -> ConnectionState:
    """Track a psycopg connection of *alias*; nothing is sent.

    *in_pool*: it is a pool that is at work on the connection.
    """
    connection = unwrapped(connection)
    if not dumping.is_installed(connection.adapters):
        dumping.install(connection.adapters)
    state = _connection.attach(connection, alias)
    change = state.alias.arrive(state.server)
    if change is not None:
        runtime.announce(change, in_pool)
    return state


def renew() -> None:
    """Have every connection that is open resolve what is tracked now.

    New ones do by the template that they are made with.
    """
    for connection in runtime.open_connections():
        dumping.install(connection.adapters)
